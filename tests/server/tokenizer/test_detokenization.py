"""Streams write exactly what the library decodes, for every kind of tokenizer."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.support.vocabularies import KINDS, SENTENCES
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import decoders, models

from gpt2flow.server.tokenizer.text_stream import TextStream
from gpt2flow.server.tokenizer.tokenizer import Tokenizer

LIBRARY = {name: kind.make() for name, kind in KINDS.items()}
TOKENIZERS = {name: Tokenizer(each.to_str().encode()) for name, each in LIBRARY.items()}
# Ids of all tokens, and of some that no tokenizer has.
IDS = st.lists(st.integers(0, 505), max_size=24)
# Bytes of a fallback are drawn more often, so that runs of them are characters or almost.
TEXTS = st.lists(st.sampled_from([*"的学é€☃한글 ", "the ", "\n", "\ufffd"]), max_size=12)
kinds = pytest.mark.parametrize("kind", KINDS)


def write(stream: TextStream, ids: Sequence[int]) -> str:
    """Return a stream's text for tokens, up to a stop string."""
    text = ""
    for token_id in ids:
        text += stream.push(token_id)
        if stream.stop_string:
            break
    return text + stream.finish()


def damaged(ids: list[int], data: st.DataObject) -> list[int]:
    """Return some of the tokens, so that characters are incomplete."""
    kept = data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    return [token_id for token_id, keep in zip(ids, kept, strict=True) if keep]


@kinds
@given(ids=IDS, text=TEXTS, data=st.data())
def test_a_stream_writes_what_the_library_decodes(
    kind: str, ids: list[int], text: list[str], data: st.DataObject
) -> None:
    tokenizer, library = TOKENIZERS[kind], LIBRARY[kind]
    ids = [*ids, *damaged(tokenizer.encode("".join(text)), data)]
    for skip in (True, False):
        expected = library.decode(ids, skip_special_tokens=skip)
        assert write(tokenizer.stream(skip_special_tokens=skip), ids) == expected
        assert tokenizer.decode(ids, skip_special_tokens=skip) == expected


@kinds
@given(ids=IDS, cut=st.integers(0, 24))
def test_a_fork_writes_the_same_text(kind: str, ids: list[int], cut: int) -> None:
    stream = TOKENIZERS[kind].stream()
    text = "".join(stream.push(token_id) for token_id in ids[:cut])
    twin = stream.fork()
    assert text + write(twin, ids[cut:]) == TOKENIZERS[kind].decode(ids, skip_special_tokens=True)
    assert text + stream.finish() == TOKENIZERS[kind].decode(ids[:cut], skip_special_tokens=True)


@kinds
@given(ids=IDS, stop=st.sampled_from(["的", " ", "é", "th", "\n", "学生", "ed"]), text=TEXTS)
def test_a_stop_string_is_found_as_soon_as_it_is_decoded(
    kind: str, ids: list[int], stop: str, text: list[str]
) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = [*ids, *tokenizer.encode("".join(text))]
    stream = tokenizer.stream([stop])
    decoded = [tokenizer.decode(ids[:end], skip_special_tokens=True) for end in range(len(ids) + 1)]
    expected = next((each for each in decoded if stop in each), decoded[-1])
    assert write(stream, ids) == expected.partition(stop)[0]
    assert stream.stop_string == (stop if stop in expected else "")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "byte-level" not in kind])
@given(before=IDS, ids=IDS)
def test_a_continuing_stream_writes_the_rest_of_a_longer_text(
    kind: str, before: list[int], ids: list[int]
) -> None:
    tokenizer = TOKENIZERS[kind]
    text = tokenizer.decode(before)
    # A run of bytes may be valid or not only together with those that follow.
    used = [token_id for token_id in before if token_id < tokenizer.vocabulary_size]
    assume(text and len(tokenizer.piece(used[-1])) > 1)
    stream = tokenizer.stream(skip_special_tokens=False, before=before)
    assert text + write(stream, ids) == tokenizer.decode([*before, *ids])


@kinds
def test_ordinary_text_arrives_with_its_tokens(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    for sentence in SENTENCES:
        ids = tokenizer.encode(sentence)
        stream = tokenizer.stream()
        chunks = [stream.push(token_id) for token_id in ids]
        seen = list(itertools.accumulate(chunks))
        whole = [
            tokenizer.decode(ids[:end], skip_special_tokens=True) for end in range(1, len(ids))
        ]
        # What is not yet there is an incomplete character, or a run of bytes.
        for got, expected in zip(seen, whole, strict=False):
            assert expected.rstrip("\ufffd").startswith(got)
            assert len(expected) - len(got) <= 12


def test_a_run_of_bytes_is_written_when_it_ends() -> None:
    tokenizer = TOKENIZERS["BPE with byte fallback"]
    stream = tokenizer.stream()
    ids = tokenizer.encode("☃the", continuing=True)
    assert [stream.push(token_id) for token_id in ids][:4] == ["", "", "", "☃t"]


@pytest.mark.parametrize(
    "decoder, names",
    [
        (decoders.CTC(), "CTC"),
        (decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()]), "ByteFallback"),
        (decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 1, 1)]), "Fuse \\+ Strip"),
    ],
)
def test_another_decoder_is_refused_by_name(decoder: decoders.Decoder, names: str) -> None:
    library = HfTokenizer(models.BPE({"a": 0}, []))
    library.decoder = decoder
    with pytest.raises(ValueError, match=f"its decoder is {names}.*; supported are ByteLevel, "):
        Tokenizer(library.to_str().encode())


def test_a_tokenizer_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="it has no tokens"):
        Tokenizer(HfTokenizer(models.BPE()).to_str().encode())
