"""Tokens that begin and end a text are those that transformers finds."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.support.checkpoint_files import change_config
from transformers import AutoTokenizer, GPT2LMHeadModel

from gpt2flow.export.checkpoint.checkpoint import read_checkpoint
from gpt2flow.export.errors import CheckpointError

SIZE = 113
FIELDS = ("eos_token_id", "bos_token_id")


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may change."""
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


def rewrite(directory: Path, config: dict[str, Any], generation: dict[str, Any] | None) -> None:
    """Replace the special ids of both files; None removes `generation_config.json`."""
    path = directory / "config.json"
    fields = json.loads(path.read_text())
    rest = {name: value for name, value in fields.items() if name not in FIELDS}
    path.write_text(json.dumps(rest | config))
    other = directory / "generation_config.json"
    other.unlink()
    if generation is not None:
        other.write_text(json.dumps(generation))


def listed(value: int | list[int] | None) -> list[int]:
    ids = value if isinstance(value, list) else [value]
    return [each for each in ids if each is not None and 0 <= each < SIZE]


@pytest.mark.parametrize(
    "config, generation",
    [
        ({}, None),
        ({"eos_token_id": 7}, None),
        ({"eos_token_id": None}, None),
        ({"eos_token_id": [0, 7]}, None),
        ({"eos_token_id": [7, 7, 3]}, None),
        ({"eos_token_id": -1}, None),
        ({"eos_token_id": 7}, {"eos_token_id": 9}),
        ({"eos_token_id": 7}, {"eos_token_id": [9, 11]}),
        ({"eos_token_id": 7}, {}),
        ({"eos_token_id": 7, "bos_token_id": 3}, {"bos_token_id": 4}),
        ({"eos_token_id": 7}, {"eos_token_id": None}),
        ({"eos_token_id": [0, 1000]}, None),
        ({"eos_token_id": 0, "bos_token_id": 500}, None),
        ({"eos_token_id": 0, "bos_token_id": None}, None),
        ({"eos_token_id": 0, "pad_token_id": -1}, None),
        ({"eos_token_id": 0}, {"eos_token_id": 2, "pad_token_id": 1000, "temperature": 0.7}),
    ],
)
def test_the_ids_are_those_of_transformers(
    copy: Path, config: dict[str, Any], generation: dict[str, Any] | None
) -> None:
    rewrite(copy, config, generation)
    theirs = GPT2LMHeadModel.from_pretrained(copy).generation_config
    source = read_checkpoint(copy)
    assert list(source.special_ids.eos) == list(dict.fromkeys(listed(theirs.eos_token_id)))
    begin = [*listed(theirs.bos_token_id), AutoTokenizer.from_pretrained(copy).bos_token_id]
    assert source.special_ids.bos == begin[0]


@pytest.mark.parametrize(
    "config, generation, warnings",
    [
        ({"eos_token_id": 0}, None, []),
        ({"eos_token_id": [0, 7]}, {"eos_token_id": 0}, []),
        ({}, None, ["config.json: no token ends a text, for want of a valid eos_token_id"]),
        (
            {"eos_token_id": [1000, 3], "bos_token_id": 113},
            None,
            [
                "config.json: bos_token_id 113 is the id of no token; it is left out",
                "config.json: eos_token_id 1000 is the id of no token; it is left out",
            ],
        ),
        (
            {"eos_token_id": 0},
            {"eos_token_id": -1},
            [
                "generation_config.json: eos_token_id -1 is the id of no token; it is left out",
                "generation_config.json: no token ends a text, for want of a valid eos_token_id",
            ],
        ),
    ],
)
def test_an_id_without_a_token_is_left_out_with_a_warning(
    copy: Path, config: dict[str, Any], generation: dict[str, Any] | None, warnings: list[str]
) -> None:
    rewrite(copy, config, generation)
    assert list(read_checkpoint(copy).warnings) == warnings


@pytest.mark.parametrize("value", ["</s>", 1.5, True, [0, "x"], [[0]], {"a": 1}])
def test_an_id_that_is_no_integer_is_refused(copy: Path, value: object) -> None:
    rule = "Input should be a token id, a list of token ids, or null"
    rewrite(copy, {"eos_token_id": 0}, {"eos_token_id": value})
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(copy)
    assert str(caught.value) == f"generation_config.json: eos_token_id is {value!r}: {rule}"
    (copy / "generation_config.json").unlink()
    change_config(copy, eos_token_id=value)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(copy)
    assert str(caught.value) == f"config.json: eos_token_id is {value!r}: {rule}"


def test_the_tokenizer_may_have_the_token_that_begins_a_text(copy: Path) -> None:
    rewrite(copy, {"eos_token_id": 0, "bos_token_id": None}, None)
    assert read_checkpoint(copy).special_ids.bos == 0
    settings = {"tokenizer_class": "GPT2TokenizerFast", "bos_token": "<|user|>"}
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    assert read_checkpoint(copy).special_ids.bos == 1


@pytest.mark.parametrize(
    "kept", [("architectures",), ("n_embd", "n_head", "n_layer")], ids=["class", "fields"]
)
def test_a_configuration_without_a_model_type_is_completed(
    copy: Path, kept: tuple[str, ...]
) -> None:
    path = copy / "config.json"
    fields = json.loads(path.read_text())
    needed = {"n_embd", "n_head", "n_layer", "n_positions", "vocab_size", "eos_token_id"}
    path.write_text(json.dumps({name: fields[name] for name in needed | set(kept)}))
    source = read_checkpoint(copy)
    assert source.warnings == (
        "config.json: model_type is missing; its other fields are of 'gpt2'",
    )
    assert json.loads(source.config_json)["model_type"] == "gpt2"
