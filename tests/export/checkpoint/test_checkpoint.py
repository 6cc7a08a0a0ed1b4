"""Checkpoints of all formats yield the same weights."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.checkpoint_files import (
    BIN,
    FORMATS,
    HEAD,
    SAFETENSORS,
    WTE,
    change_config,
    edit_weights,
    replace_weights,
    rewrite_as_first_gpt2,
)

from gpt2flow.export.checkpoint.checkpoint import read_checkpoint


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may change."""
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


@pytest.mark.parametrize("rewrite", FORMATS.values(), ids=FORMATS.keys())
def test_every_format_holds_the_same_weights(
    checkpoint: Path, copy: Path, rewrite: Callable[[Path], None]
) -> None:
    rewrite(copy)
    expected, actual = read_checkpoint(checkpoint), read_checkpoint(copy)
    for name in expected.architecture.weight_shapes():
        np.testing.assert_array_equal(actual.weights[name], expected.weights[name])
    assert actual.parameters == expected.parameters


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32(copy: Path, dtype: torch.dtype) -> None:
    replace_weights(
        copy,
        lambda tensors: save_file({n: t.to(dtype) for n, t in tensors.items()}, copy / SAFETENSORS),
    )
    weights = read_checkpoint(copy).weights
    original = load_file(copy / SAFETENSORS)["transformer.wte.weight"]
    assert weights["wte.weight"].dtype == np.float32
    np.testing.assert_array_equal(weights["wte.weight"], original.float().numpy())


def test_an_old_configuration_reads_as_a_new_one(checkpoint: Path, copy: Path) -> None:
    rewrite_as_first_gpt2(copy)
    expected = read_checkpoint(checkpoint).architecture
    ours = expected.model_dump(exclude={"architectures"})
    assert read_checkpoint(copy).architecture.model_dump(exclude={"architectures"}) == ours


def test_formats_have_the_precedence_of_transformers(copy: Path) -> None:
    torch.save({"wte.weight": torch.zeros(3)}, copy / BIN)
    for number in (1, 2):
        (copy / f"model-0000{number}-of-00002.safetensors").write_bytes(b"nothing")
    source = read_checkpoint(copy)
    (copy / BIN).unlink()
    assert read_checkpoint(copy).sha256 == source.sha256


def test_weights_may_be_symbolic_links(checkpoint: Path, copy: Path) -> None:
    """The cache of the hub stores them as links."""
    (copy.parent / "blobs").mkdir()
    blob = (copy / SAFETENSORS).rename(copy.parent / "blobs" / "f00")
    (copy / SAFETENSORS).symlink_to(os.path.relpath(blob, copy))
    assert read_checkpoint(copy).sha256 == read_checkpoint(checkpoint).sha256


def test_an_untied_head_is_read(copy: Path) -> None:
    change_config(copy, tie_word_embeddings=False)
    edit_weights(lambda tensors: tensors.update({HEAD: tensors[WTE] * 2}))(copy)
    weights = read_checkpoint(copy).weights
    np.testing.assert_array_equal(weights["lm_head.weight"], weights["wte.weight"] * 2)


def test_a_vocabulary_can_be_built_from_older_files(copy: Path) -> None:
    before = read_checkpoint(copy)
    before.tokenizer.model.save(str(copy))
    (copy / "tokenizer.json").unlink()
    source = read_checkpoint(copy)
    text = "I would like to order two blue cups.<|endoftext|>"
    assert source.tokenizer.encode(text).ids == before.tokenizer.encode(text).ids
    assert json.loads(source.tokenizer_json)["model"]["type"] == "BPE"
    (copy / "added_tokens.json").write_text("{}")
    assert len({before.sha256, source.sha256, read_checkpoint(copy).sha256}) == 3


def test_parameters_of_a_tied_head_count_once(copy: Path, trained: Any) -> None:
    assert read_checkpoint(copy).parameters == trained.num_parameters()


def test_training_facts_and_generation_config_are_read(copy: Path) -> None:
    source = read_checkpoint(copy)
    assert source.training == {"corpus": "six documents"}
    assert source.generation_config["eos_token_id"] == 0
    (copy / "training.json").unlink()
    (copy / "generation_config.json").unlink()
    source = read_checkpoint(copy)
    assert source.training == {}
    assert source.generation_config == {"bos_token_id": 0, "eos_token_id": 0}


def test_the_hash_covers_the_files_read(copy: Path) -> None:
    before = read_checkpoint(copy).sha256
    (copy / "training.json").unlink()
    assert read_checkpoint(copy).sha256 == before
    tensors = load_file(copy / SAFETENSORS)
    tensors["transformer.ln_f.bias"][0] += 1
    save_file(tensors, copy / SAFETENSORS)
    assert read_checkpoint(copy).sha256 != before
