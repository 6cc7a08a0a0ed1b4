"""From the times at which tokens came to the figures: the same definitions for every engine."""

from collections.abc import Sequence

# For each stream, the seconds at which its tokens were there.
Streams = Sequence[Sequence[float]]


def first_token_ms(streams: Streams) -> float:
    """Return milliseconds to the first token of the first stream."""
    return streams[0][0] * 1e3


def decode_rate(streams: Streams) -> float:
    """Return tokens a second while all streams decode.

    That is from when the last of them got its first token to when the first of them got its last
    one; for one stream, all tokens but the first over the time from the first to the last. An
    engine that never runs all of them together gets what it made of all tokens in all the time.
    """
    begin = max(stream[0] for stream in streams)
    end = min(stream[-1] for stream in streams)
    if end <= begin:
        return whole_rate(streams)
    return sum(begin < time <= end for stream in streams for time in stream) / (end - begin)


def whole_rate(streams: Streams) -> float:
    """Return all tokens over the time from the start to the last one, prompts included."""
    return sum(map(len, streams)) / max(stream[-1] for stream in streams)
