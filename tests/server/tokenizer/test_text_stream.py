"""Text stream: whole characters, and stop strings."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from gpt2flow.server.tokenizer.detokenization import ByteDetokenizer
from gpt2flow.server.tokenizer.text_stream import TextStream

texts = st.text(st.characters(codec="utf-8"), max_size=40)


class BytesStream:
    """Text stream whose vocabulary grows with the bytes pushed."""

    def __init__(self, stop_strings: tuple[str, ...] = ()) -> None:
        self.pieces: list[bytes] = []
        self.text = TextStream(ByteDetokenizer(self.pieces), stop_strings)

    def push(self, piece: bytes, *, check_stops: bool = True) -> str:
        """Push a token of these bytes."""
        self.pieces.append(piece)
        return self.text.push(len(self.pieces) - 1, check_stops=check_stops)


def stream_all(pieces: list[bytes], stops: tuple[str, ...]) -> tuple[list[str], str]:
    """Push pieces until a stop string ends the stream.

    Returns:
        The text of each piece and of the end, and the stop string or "".
    """
    stream = BytesStream(stops)
    texts = []
    for piece in pieces:
        texts.append(stream.push(piece))
        if stream.text.stop_string:
            break
    return [*texts, stream.text.finish()], stream.text.stop_string


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[one:two] for one, two in itertools.pairwise(edges)]


cuts = st.lists(st.integers(0, 60), max_size=12)


@given(texts, cuts)
def test_a_stream_returns_whole_characters(text: str, cuts: list[int]) -> None:
    pieces, _ = stream_all(split(text.encode(), cuts), ())
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces) or "\ufffd" in text


@given(st.binary(max_size=20), cuts)
def test_a_stream_decodes_invalid_bytes_as_the_whole_text(data: bytes, cuts: list[int]) -> None:
    pieces, _ = stream_all(split(data, cuts), ())
    assert "".join(pieces) == data.decode("utf-8", errors="replace")


@given(
    st.text("abé", max_size=30),
    st.lists(st.text("abé", min_size=1, max_size=4), min_size=1, max_size=3),
    st.data(),
)
def test_stop_strings_are_never_returned(text: str, stops: list[str], data: st.DataObject) -> None:
    # Character by character, the first complete stop string ends the text.
    expected, stopped = text, ""
    for end in range(1, len(text) + 1):
        ends = [stop for stop in stops if text[:end].endswith(stop)]
        if ends:
            stopped = max(ends, key=len)
            expected = text[: end - len(stopped)]
            break
    cuts = data.draw(st.lists(st.integers(0, 60), max_size=12)) if not stopped else []
    raw = split(text.encode(), cuts) if cuts else [c.encode() for c in text]
    pieces, stop_string = stream_all(raw, tuple(stops))
    assert ("".join(pieces), stop_string) == (expected, stopped)


@given(st.text("ab", max_size=30), st.text("ab", min_size=1, max_size=4), cuts)
def test_chunking_does_not_move_the_stop(text: str, stop: str, cuts: list[int]) -> None:
    pieces, _ = stream_all(split(text.encode(), cuts), (stop,))
    assert "".join(pieces) == text.partition(stop)[0]


def test_text_is_delayed_only_while_it_may_start_a_stop_string() -> None:
    stream = BytesStream(("END",))
    assert stream.push(b"so E") == "so "
    assert stream.push(b"N") == ""
    assert stream.push(b"ough") == "ENough"


def test_stop_strings_can_be_ignored_per_push() -> None:
    stream = BytesStream(("x",))
    assert stream.push(b"axb", check_stops=False) == "axb"
    assert stream.text.finish() == ""
    assert stream.push(b"cxd") == "c"
    assert stream.text.stop_string == "x"


def test_a_fork_continues_independently() -> None:
    stream = BytesStream(("END",))
    stream.push(b"E" + "é".encode()[:1])
    twin = stream.text.fork()
    stream.pieces.append("é".encode()[1:])
    assert twin.push(1) + twin.finish() == "Eé"
    assert stream.text.finish() == "E\ufffd"
