"""Vocabularies of every kind and layout encode as `AutoTokenizer` does."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.vocabularies import KINDS, SENTENCES, UNKNOWN, word_piece
from tokenizers import Tokenizer, processors
from transformers import (
    AutoTokenizer,
    BertTokenizerFast,
    GPT2Config,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING

from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.checkpoint.vocabulary import Vocabulary, read_vocabulary
from gpt2flow.export.errors import CheckpointError

TEXTS = (*SENTENCES, UNKNOWN, "", " ", "  a  b\n", "a<s> b</s>[SEP] <|endoftext|>c [PAD]")


def write(directory: Path, name: str, content: object) -> None:
    (directory / name).write_text(json.dumps(content))


def read(directory: Path, size: int) -> Vocabulary:
    if not (directory / "config.json").is_file():
        write(directory, "config.json", {"model_type": "gpt2"})
    return read_vocabulary(directory, Architecture(vocab_size=size))


def assert_equal(vocabulary: Vocabulary, expected: Any) -> None:
    """Compare the file of a bundle with a tokenizer of transformers."""
    tokenizer = Tokenizer.from_str(vocabulary.json.decode())
    for text in TEXTS:
        for special in (True, False):
            ids = tokenizer.encode(text, add_special_tokens=special).ids
            assert ids == expected(text, add_special_tokens=special).input_ids
            for skip in (True, False):
                assert tokenizer.decode(ids, skip_special_tokens=skip) == expected.decode(
                    ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False
                )


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_equals_that_of_transformers(kind: str, tmp_path: Path) -> None:
    size = KINDS[kind].save(tmp_path).get_vocab_size()
    vocabulary = read(tmp_path, size)
    expected = AutoTokenizer.from_pretrained(tmp_path)
    assert_equal(vocabulary, expected)
    assert vocabulary.left_out == ()
    assert vocabulary.bos_token_id == expected.convert_tokens_to_ids(KINDS[kind].bos)
    assert {path.name for path in vocabulary.files} == {
        path.name for path in tmp_path.iterdir() if path.name != "config.json"
    }


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not KINDS[kind].legacy])
def test_a_tokenizer_json_alone_is_kept(kind: str, tmp_path: Path) -> None:
    tokenizer = KINDS[kind].make()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = read(tmp_path, tokenizer.get_vocab_size())
    assert vocabulary.json == (tmp_path / "tokenizer.json").read_bytes()
    # The class of GPT-2's tokenizers would add one to the others.
    assert vocabulary.left_out == ()


BESIDE: dict[str, dict[str, dict[str, Any]]] = {
    "roles": {"tokenizer_config.json": {"bos_token": "<s>", "pad_token": "[PAD]"}},
    "a map of special tokens": {"special_tokens_map.json": {"mask_token": "<mask>"}},
    "added tokens": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                "1": {"content": "<s>", "special": True},
                "300": {"content": "[PAD]", "lstrip": True, "special": True},
            }
        }
    },
    "a prefix": {
        "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}
    },
    "a class of the model": {
        "config.json": {"model_type": "gpt2", "tokenizer_class": "PreTrainedTokenizerFast"}
    },
}


@pytest.mark.parametrize("kind", ["Unigram", "byte-level BPE"])
@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE.keys())
def test_files_beside_a_tokenizer_json_are_honoured(
    kind: str, beside: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    tokenizer = KINDS[kind].make()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, "config.json", {"model_type": "gpt2"})
    for name, content in beside.items():
        write(tmp_path, name, content)
    vocabulary = read(tmp_path, tokenizer.get_vocab_size() + 8)
    # GPT-2's class, which `AutoTokenizer` takes, makes every vocabulary a byte-level one.
    roles = dict.fromkeys(["bos_token", "eos_token", "unk_token"], "<|endoftext|>")
    stated = beside.get("tokenizer_config.json", {})
    expected = (
        AutoTokenizer.from_pretrained(tmp_path)
        if kind == "byte-level BPE" or "config.json" in beside
        else PreTrainedTokenizerFast.from_pretrained(tmp_path, **roles | stated)
    )
    assert_equal(vocabulary, expected)


def test_a_word_piece_file_needs_no_class(tmp_path: Path) -> None:
    word_piece().model.save(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["vocab.txt"]
    assert_equal(read(tmp_path, 300), BertTokenizerFast.from_pretrained(tmp_path))


@pytest.mark.parametrize("config", [{"n_layer": 1}, {"tokenizer_class": "BertTokenizer"}])
def test_an_old_configuration_is_read(config: dict[str, Any], tmp_path: Path) -> None:
    """A configuration without `model_type` stops `AutoTokenizer` itself."""
    word_piece().model.save(str(tmp_path))
    write(tmp_path, "config.json", config)
    assert_equal(read(tmp_path, 300), BertTokenizerFast.from_pretrained(tmp_path))


def test_lower_casing_is_a_setting(tmp_path: Path) -> None:
    word_piece().model.save(str(tmp_path))
    for lower, tokens in ((True, ["the"]), (False, ["[UNK]"])):
        settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower}
        write(tmp_path, "tokenizer_config.json", settings)
        vocabulary = read(tmp_path, 300)
        assert vocabulary.tokenizer.encode("The", add_special_tokens=False).tokens == tokens
        assert_equal(vocabulary, AutoTokenizer.from_pretrained(tmp_path))


def test_tokens_around_a_text_are_kept(tmp_path: Path) -> None:
    tokenizer = KINDS["byte-level BPE"].make()
    tokenizer.post_processor = processors.TemplateProcessing(
        "<|endoftext|> $A", "$A $B", [("<|endoftext|>", 0)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = read(tmp_path, 400)
    assert vocabulary.tokenizer.encode("a").ids[0] == 0
    assert_equal(vocabulary, AutoTokenizer.from_pretrained(tmp_path))


class SplitInPython(PreTrainedTokenizerFast):  # type: ignore[misc]
    """Tokenizer that changes a text before its `tokenizer.json` does."""

    def __call__(self, text: Any = None, *args: Any, **options: Any) -> Any:
        changed = text.replace("a", " ") if isinstance(text, str) else text
        return super().__call__(changed, *args, **options)


@pytest.fixture
def _registered() -> Iterator[None]:
    """Let `AutoTokenizer` find the class."""
    AutoTokenizer.register(GPT2Config, fast_tokenizer_class=SplitInPython, exist_ok=True)
    yield
    TOKENIZER_MAPPING._extra_content.pop(GPT2Config)


def _class(name: str) -> Callable[[Path], None]:
    return lambda directory: write(directory, "tokenizer_config.json", {"tokenizer_class": name})


def _sentence_piece(directory: Path) -> None:
    (directory / "tokenizer.json").unlink()
    (directory / "spiece.model").write_bytes(b"\n\x0e\n\x05<unk>")


def _slow(directory: Path) -> None:
    (directory / "tokenizer.json").unlink()
    KINDS["byte-level BPE"].make().model.save(str(directory))
    _class("CTRLTokenizer")(directory)


ERRORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (
        lambda d: (d / "tokenizer.json").unlink(),
        r"tokenizer\.json is missing, and so is vocab\.json, vocab\.txt or spiece\.model",
    ),
    "a damaged file": (
        lambda d: (d / "tokenizer.json").write_text("{"),
        r"tokenizer\.json cannot be read: ",
    ),
    "an unknown class": (
        _class("OwnTokenizer"),
        r"tokenizer_config\.json: tokenizer_class is 'OwnTokenizer', which transformers lacks; ",
    ),
    "a class that does more": (
        _class("SplitInPython"),
        r"SplitInPython does more in Python than a tokenizer\.json can hold$",
    ),
    "a class in Python only": (_slow, r"CTRLTokenizer exists in Python only, and has no "),
    "a SentencePiece model without the package": (
        _sentence_piece,
        r"spiece\.model takes the package sentencepiece to read: pip install sentencepiece==",
    ),
    "special tokens that are always text": (
        lambda d: write(d, "tokenizer_config.json", {"split_special_tokens": True}),
        r"tokenizer_config\.json: split_special_tokens is not supported",
    ),
}


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("damage, message", ERRORS.values(), ids=ERRORS.keys())
def test_a_vocabulary_that_cannot_be_served_is_refused_in_one_line(
    damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    KINDS["Unigram"].make().save(str(tmp_path / "tokenizer.json"))
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message) as caught:
        read(tmp_path, 500)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
