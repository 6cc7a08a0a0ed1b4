"""Older vocabulary files yield the same tokenizer as in transformers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.project import PROJECT
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Tokenizer, GPT2TokenizerFast

from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.checkpoint.vocabulary import read_vocabulary
from gpt2flow.export.errors import CheckpointError

TEXTS = [
    *(path.read_text(encoding="utf-8") for path in sorted(PROJECT.glob("*.md"))),
    "It's   what they've said:\n\n\t naïve café — 12,345.67 €… 你好，世界 🙂👩‍👩‍👧 \u00a0end ",
    "<|endoftext|>One document.<|endoftext|>\nAnother <|endoftext|> one.<|endoftext|",
    " <s> in </s>the [PAD] middle<mask> [PAD]",
    "",
]
TRAINED = 600
# More entries than the vocabulary, as after padding the embedding table.
ARCHITECTURE = Architecture.from_config({"model_type": "gpt2", "vocab_size": TRAINED + 8})


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=TRAINED,
        special_tokens=["<|endoftext|>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


@pytest.fixture
def old(trained: Tokenizer, tmp_path: Path) -> Path:
    """The vocabulary files of GPT-2's first checkpoints."""
    trained.model.save(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merges.txt", "vocab.json"]
    return tmp_path


def write(name: str, content: object) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_text(json.dumps(content))


OBJECT = {"content": "[PAD]", "lstrip": True, "rstrip": False, "normalized": False}
MORE_FILES: dict[str, list[Callable[[Path], object]]] = {
    "nothing more": [],
    "roles": [
        write("special_tokens_map.json", dict.fromkeys(["bos_token", "eos_token"], "<|endoftext|>"))
    ],
    "a token added for padding": [
        write("special_tokens_map.json", {"pad_token": "[PAD]", "bos_token": "<s>"})
    ],
    "a token with flags": [write("special_tokens_map.json", {"pad_token": OBJECT})],
    "more special tokens": [
        write("special_tokens_map.json", {"additional_special_tokens": ["<s>", "</s>", "<mask>"]}),
        write("added_tokens.json", {"<mask>": TRAINED, "[PAD]": TRAINED + 1}),
    ],
    "settings": [
        write("tokenizer_config.json", {"eos_token": "</s>", "add_prefix_space": True}),
    ],
    "roles in two places": [
        write("tokenizer_config.json", {"pad_token": "<pad>", "mask_token": "<mask>"}),
        write("special_tokens_map.json", {"pad_token": OBJECT, "unk_token": "<|endoftext|>"}),
    ],
    "settings with ids": [
        write(
            "tokenizer_config.json",
            {
                "added_tokens_decoder": {
                    str(TRAINED + 1): OBJECT | {"special": True},
                    str(TRAINED): {"content": "<mask>", "special": False, "normalized": True},
                    "0": {"content": "<|endoftext|>", "special": True},
                },
                "pad_token": "[PAD]",
            },
        ),
    ],
}


@pytest.mark.parametrize("more", MORE_FILES.values(), ids=MORE_FILES.keys())
def test_the_tokenizer_agrees_with_transformers(
    old: Path, more: list[Callable[[Path], object]]
) -> None:
    for add in more:
        add(old)
    vocabulary = read_vocabulary(old, ARCHITECTURE)
    # Read back from the bytes that are written to the bundle.
    tokenizer = Tokenizer.from_str(vocabulary.json.decode())
    fast = GPT2TokenizerFast.from_pretrained(old)
    slow = GPT2Tokenizer.from_pretrained(old)
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert ids == fast(text, add_special_tokens=False).input_ids
        # The two tokenizers of transformers differ in where they add a prefix space.
        if not slow.add_prefix_space:
            assert ids == slow(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == fast.decode(
            ids, clean_up_tokenization_spaces=False
        )
    assert {path.name for path in vocabulary.files} == {path.name for path in old.iterdir()}


def test_the_same_files_make_the_same_bytes(old: Path) -> None:
    MORE_FILES["more special tokens"][0](old)
    first, second = (read_vocabulary(old, ARCHITECTURE).json for _ in range(2))
    assert first == second


def test_an_existing_tokenizer_json_is_used_unchanged(old: Path, trained: Tokenizer) -> None:
    trained.decoder = decoders.ByteLevel()
    trained.save(str(old / "tokenizer.json"))
    vocabulary = read_vocabulary(old, ARCHITECTURE)
    assert vocabulary.json == (old / "tokenizer.json").read_bytes()
    assert vocabulary.files == (old / "tokenizer.json",)


def _another_decoder(directory: Path) -> None:
    tokenizer = Tokenizer(models.BPE({"a": 0}, []))
    tokenizer.decoder = decoders.CTC()
    tokenizer.save(str(directory / "tokenizer.json"))


def _edit(name: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        path = directory / name
        path.write_text(str(change(path.read_text(encoding="utf-8"))), encoding="utf-8")

    return edit


ERRORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "neither": (
        lambda d: (d / "vocab.json").unlink(),
        r"tokenizer\.json is missing, and so is vocab\.json to build it from$",
    ),
    "no merges": (
        lambda d: (d / "merges.txt").unlink(),
        r"tokenizer\.json is missing, and so is merges\.txt to build it from$",
    ),
    "corrupt entries": (
        _edit("vocab.json", lambda text: text[: len(text) // 2]),
        r"vocab\.json and .*merges\.txt are not a vocabulary: ",
    ),
    "merges of another vocabulary": (
        _edit("merges.txt", lambda text: f"{text}zz qq\n"),
        r"merges\.txt are not a vocabulary: .*zz",
    ),
    "another kind": (
        _another_decoder,
        r"tokenizer\.json: its decoder is CTC; supported are ByteLevel, WordPiece, ",
    ),
    "no id": (
        write("added_tokens.json", {"<mask>": None}),
        r"added_tokens\.json: '<mask>' has the id None; it must be a number$",
    ),
    "no token": (
        write("special_tokens_map.json", {"eos_token": 7}),
        r"special_tokens_map\.json: eos_token is 7; it must be a text, or an object with content$",
    ),
    "no list": (
        write("special_tokens_map.json", {"additional_special_tokens": "<mask>"}),
        r"special_tokens_map\.json: additional_special_tokens is '<mask>'; it must be a list$",
    ),
    "no object": (
        write("tokenizer_config.json", []),
        r"tokenizer_config\.json does not hold a JSON object$",
    ),
}


@pytest.mark.parametrize("damage, message", ERRORS.values(), ids=ERRORS.keys())
def test_a_bad_vocabulary_is_refused_in_one_line(
    old: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(old)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_vocabulary(old, ARCHITECTURE)
    assert "\n" not in str(caught.value)
