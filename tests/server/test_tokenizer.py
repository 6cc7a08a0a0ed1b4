"""Tokenizer and text stream: byte-exact text to tokens and back."""

import itertools
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as HfTokenizer

from gpt2flow.server.tokenizer import TextStream, Tokenizer

dropping = pre_tokenizers.Sequence(
    [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)
texts = st.text(st.characters(codec="utf-8"), max_size=40)


@given(texts)
def test_decode_undoes_encode(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.lists(st.integers(2, 300), max_size=30))
def test_decode_equals_that_of_the_library(
    tokenizer: Tokenizer, bundle: Path, ids: list[int]
) -> None:
    library = HfTokenizer.from_file(str(bundle / "tokenizer.json"))
    assert tokenizer.decode(ids) == library.decode(ids, skip_special_tokens=False)


@given(texts)
def test_tokens_hold_their_bytes_and_offsets(tokenizer: Tokenizer, text: str) -> None:
    data = text.encode()
    tokens = tokenizer.tokenize(text)
    assert b"".join(token.piece for token in tokens) == data
    assert all(data[token.start : token.end] == token.piece for token in tokens)


@given(texts)
def test_least_tokens_is_a_lower_bound(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.least_tokens(text) <= len(tokenizer.encode(text))
    longest = max(len(tokenizer.piece(i)) for i in range(tokenizer.vocabulary_size))
    assert tokenizer.least_tokens("é" * longest) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": normalizers.Strip()},
        {"pre_tokenizer": pre_tokenizers.Whitespace()},
        {"pre_tokenizer": dropping},
        {"pre_tokenizer": None},
        {"added": AddedToken("<|gap|>", lstrip=True)},
    ],
)
def test_least_tokens_is_zero_if_text_may_be_dropped(bundle: Path, changes: dict[str, Any]) -> None:
    library = HfTokenizer.from_file(str(bundle / "tokenizer.json"))
    if "added" in changes:
        library.add_tokens([changes["added"]])
    else:
        [(name, value)] = changes.items()
        setattr(library, name, value)
    assert Tokenizer(library.to_str().encode()).least_tokens("é" * 1000) == 0


def test_other_threads_run_while_a_text_is_tokenized(tokenizer: Tokenizer) -> None:
    text = "word " * 100_000
    thread = threading.Thread(target=tokenizer.encode, args=(text,))
    turns = 0
    thread.start()
    while thread.is_alive():
        time.sleep(0)
        turns += 1
    # If encoding held the GIL, there would be a few turns only: before and after it.
    assert turns > 100


def test_special_tokens_are_encoded_and_decoded(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("<|user|>") == [1]
    assert tokenizer.decode([1]) == "<|user|>"


def test_an_unused_id_has_no_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.piece(10**6) == b""


def test_offsets_refer_to_the_text_before_normalization(tokenizer: Tokenizer) -> None:
    library = HfTokenizer.from_buffer(tokenizer.json)
    library.normalizer = normalizers.Lowercase()
    tokens = Tokenizer(library.to_str().encode()).tokenize("éWhere")
    assert tokens[0].start == 0
    assert tokens[-1].end == len("éWhere".encode())
    assert all(one.end == two.start for one, two in itertools.pairwise(tokens))


@pytest.mark.parametrize("json", ["", "{}", "[1]"])
def test_an_invalid_tokenizer_file_is_refused(json: str) -> None:
    with pytest.raises(ValueError, match="not a tokenizer"):
        Tokenizer(json.encode())


def test_a_tokenizer_that_is_not_byte_level_is_refused() -> None:
    other = HfTokenizer(models.BPE({"a": 0}, []))
    other.decoder = decoders.BPEDecoder()
    with pytest.raises(ValueError, match="not a byte-level tokenizer"):
        Tokenizer(other.to_str().encode())


def stream_all(pieces: list[bytes], stops: tuple[str, ...]) -> tuple[list[str], str]:
    """Push pieces until a stop string ends the stream.

    Returns:
        The text of each piece and of the end, and the stop string or "".
    """
    stream = TextStream(stops)
    texts = []
    for piece in pieces:
        texts.append(stream.push(piece))
        if stream.stop_string:
            break
    return [*texts, stream.finish()], stream.stop_string


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
    stream = TextStream(("END",))
    assert stream.push(b"so E") == "so "
    assert stream.push(b"N") == ""
    assert stream.push(b"ough") == "ENough"


def test_stop_strings_can_be_ignored_per_push() -> None:
    stream = TextStream(("x",))
    assert stream.push(b"axb", check_stops=False) == "axb"
    assert stream.finish() == ""
    assert stream.push(b"cxd") == "c"
    assert stream.stop_string == "x"


def test_a_fork_continues_independently() -> None:
    stream = TextStream(("END",))
    stream.push(b"E" + "é".encode()[:1])
    twin = stream.fork()
    assert twin.push("é".encode()[1:]) + twin.finish() == "Eé"
    assert stream.finish() == "E\ufffd"
