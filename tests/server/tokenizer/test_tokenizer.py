"""Tokenizer: text to tokens and back."""

import itertools
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as HfTokenizer

from gpt2flow.server.tokenizer.tokenizer import Tokenizer

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


def test_least_tokens_counts_the_special_tokens_around_a_text(bundle: Path) -> None:
    library = HfTokenizer.from_file(str(bundle / "tokenizer.json"))
    library.post_processor = processors.TemplateProcessing(
        "<|endoftext|> $A <|user|>", "$A $B", [("<|endoftext|>", 0), ("<|user|>", 1)]
    )
    tokenizer = Tokenizer(library.to_str().encode())
    assert tokenizer.around == (1, 1)
    for text in ("", "e", "Where is my order?"):
        ids = tokenizer.encode(text, add_special_tokens=True)
        least = tokenizer.least_tokens(text, add_special_tokens=True)
        assert 2 <= least <= len(ids)
        assert [ids[0], ids[-1]] == [0, 1]


def test_a_continuing_text_has_no_prefix(bundle: Path) -> None:
    library = HfTokenizer.from_file(str(bundle / "tokenizer.json"))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer = Tokenizer(library.to_str().encode())
    assert tokenizer.decode(tokenizer.encode("cel")) == " cel"
    for text in ("cel", " cel", "  cel"):
        assert tokenizer.decode(tokenizer.encode(text, continuing=True)) == text


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


def test_offsets_refer_to_the_text_before_normalization(bundle: Path) -> None:
    library = HfTokenizer.from_file(str(bundle / "tokenizer.json"))
    library.normalizer = normalizers.Lowercase()
    tokens = Tokenizer(library.to_str().encode()).tokenize("éWhere")
    assert tokens[0].start == 0
    assert tokens[-1].end == len("éWhere".encode())
    assert all(one.end == two.start for one, two in itertools.pairwise(tokens))


@pytest.mark.parametrize("json", ["", "{}", "[1]"])
def test_an_invalid_tokenizer_file_is_refused(json: str) -> None:
    with pytest.raises(ValueError, match="not a tokenizer"):
        Tokenizer(json.encode())
