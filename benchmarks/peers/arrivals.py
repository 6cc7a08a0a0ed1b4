"""Latency and throughput from token arrival times, defined alike for every engine."""

from collections.abc import Sequence

# Arrival times of each stream's tokens, in seconds since the common start.
Streams = Sequence[Sequence[float]]


def first_token_ms(streams: Streams) -> float:
    """Return the first stream's time to first token, in milliseconds."""
    return streams[0][0] * 1e3


def decode_rate(streams: Streams) -> float:
    """Return the tokens per second while all streams decode.

    The interval starts when the last stream gets its first token. It ends when the first stream
    gets its last token. For one stream, that is from its first token to its last. If the streams
    never decode together, the result is that of `whole_rate`.
    """
    begin = max(stream[0] for stream in streams)
    end = min(stream[-1] for stream in streams)
    if end <= begin:
        return whole_rate(streams)
    return sum(begin < time <= end for stream in streams for time in stream) / (end - begin)


def whole_rate(streams: Streams) -> float:
    """Return tokens per second from the start to the end, prefill included."""
    return sum(map(len, streams)) / max(stream[-1] for stream in streams)
