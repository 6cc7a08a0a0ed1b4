"""Any text can be encoded, and transformers encodes it alike."""

import json
from pathlib import Path

import llguidance
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, GPT2TokenizerFast

from gpt2flow.agent.flows.prompt import SPECIAL_TOKENS
from gpt2flow.training.errors import ConfigError, CorpusError
from gpt2flow.training.text.encoding import encode
from gpt2flow.training.text.vocabulary import MIN_VOCABULARY_SIZE, save_vocabulary, train_vocabulary


@pytest.fixture(scope="module")
def vocabulary(documents: list[str]) -> Tokenizer:
    return train_vocabulary(documents, 1000)


@pytest.fixture(scope="module")
def saved(vocabulary: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("vocabulary")
    save_vocabulary(vocabulary, directory, 64)
    return directory


@settings(max_examples=examples(200))
@given(text=st.text())
def test_any_text_survives_the_round_trip(vocabulary: Tokenizer, text: str) -> None:
    assert vocabulary.decode(vocabulary.encode(text).ids, skip_special_tokens=False) == text


@settings(max_examples=examples(100))
@given(text=st.text())
def test_transformers_and_llguidance_produce_the_same_tokens(
    vocabulary: Tokenizer, saved: Path, text: str
) -> None:
    loaded = AutoTokenizer.from_pretrained(saved)
    ids = vocabulary.encode(text).ids
    assert loaded(text).input_ids == ids
    guided = llguidance.LLTokenizer((saved / "tokenizer.json").read_text(encoding="utf-8"))
    if not any(token in text for token in SPECIAL_TOKENS):
        assert guided.tokenize_str(text) == ids


def test_transformers_loads_special_tokens_and_context_length(saved: Path) -> None:
    loaded = AutoTokenizer.from_pretrained(saved)
    assert isinstance(loaded, GPT2TokenizerFast)
    assert loaded.eos_token_id == loaded.bos_token_id == 0
    assert loaded.model_max_length == 64
    assert loaded.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(len(SPECIAL_TOKENS)))


def test_a_value_has_the_same_tokens_in_message_and_action(vocabulary: Tokenizer) -> None:
    for value in ("usb cables", "电热水壶", "12 Elm St, Leeds", "Zentrix"):
        alone = vocabulary.encode(value).tokens
        for text in (f"buy {value} now", f'{{"product":"{value}"}}', f"买{value}吧"):
            tokens = vocabulary.encode(text).tokens
            assert any(tokens[i : i + len(alone)] == alone for i in range(len(tokens))), (
                value,
                text,
            )


def test_digits_and_chinese_characters_are_tokens_of_their_own(vocabulary: Tokenizer) -> None:
    for token, token_id in json.loads(vocabulary.to_str())["model"]["vocab"].items():
        text = vocabulary.decode([token_id])
        chinese = [c for c in text if "\u4e00" <= c <= "\u9fff"]
        assert len(text) == 1 or not (chinese or any(c.isdigit() for c in text)), token


def test_the_same_corpus_gives_the_same_vocabulary(documents: list[str]) -> None:
    one, two = (train_vocabulary(documents[:500], 400).to_str() for _ in range(2))
    assert one == two


def test_a_vocabulary_without_the_token_that_ends_documents_is_refused() -> None:
    other = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))  # noqa: S106
    with pytest.raises(ConfigError, match=r"the vocabulary lacks <\|endoftext\|>"):
        encode(["a"], other)


def test_unattainable_vocabulary_sizes_are_rejected() -> None:
    with pytest.raises(
        ConfigError, match=f"vocabulary_size 261 is below the minimum {MIN_VOCABULARY_SIZE}"
    ):
        train_vocabulary(["abc"], 261)
    with pytest.raises(CorpusError, match="too small for vocabulary_size 300: it yields 26"):
        train_vocabulary(["abc abc"], 300)
