"""Refusals of what is no checkpoint, with what to do instead."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.support.checkpoint_files import BIN, SAFETENSORS, replace_weights, shard

from gpt2flow.export.checkpoint.checkpoint import read_checkpoint
from gpt2flow.export.errors import CheckpointError


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may change."""
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files(*names: str, **contents: Any) -> Callable[[Path], None]:
    """Return a function that replaces a checkpoint by files."""

    def write(directory: Path) -> None:
        shutil.rmtree(directory)
        for name in names:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(contents.get(path.stem, {})))

    return write


def without_weights(*names: str) -> Callable[[Path], None]:
    """Return a function that replaces a checkpoint's weights by files."""

    def write(directory: Path) -> None:
        (directory / SAFETENSORS).unlink()
        for name in names:
            (directory / name).write_text("{}")

    return write


def renamed(rename: Callable[[str], str]) -> Callable[[Path], None]:
    """Return a function that renames all weights."""

    def write(directory: Path) -> None:
        replace_weights(
            directory,
            lambda tensors: save_file(
                {rename(name): tensor for name, tensor in tensors.items()}, directory / SAFETENSORS
            ),
        )

    return write


def as_pointer(directory: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (directory / SAFETENSORS).write_text(text)


def training_state(directory: Path) -> None:
    replace_weights(
        directory,
        lambda tensors: torch.save(
            {"model_state_dict": tensors, "optimizer_state_dict": {}, "epoch": 3}, directory / BIN
        ),
    )


BASE = {"adapter_config": {"base_model_name_or_path": "org/gpt2-small", "peft_type": "LORA"}}
HINTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "adapter": (
        files("adapter_config.json", "adapter_model.safetensors", **BASE),
        (
            "config.json is missing; adapter_config.json is of an adapter, which is not the base "
            "model of another"
        ),
    ),
    "adapter without its configuration": (
        files("adapter_model.safetensors"),
        ("adapter_model.safetensors is an adapter, which is exported with its adapter_config.json"),
    ),
    "adapter beside the configuration of its base": (
        without_weights("adapter_model.bin", "adapter_config.json"),
        (
            "has no weights: no model.safetensors, no pytorch_model.bin, and no shards of either; "
            "adapter_config.json is of an adapter, which is not the base model of another"
        ),
    ),
    "output of a trainer": (
        files("trainer_state.json", "checkpoint-500/config.json", "checkpoint-1000/config.json"),
        "config.json is missing; it has 2 inside; give {0}/checkpoint-1000",
    ),
    "cache of the hub": (
        files("snapshots/abc/config.json", "refs/main"),
        "config.json is missing; it has 1 inside; give {0}/snapshots/abc",
    ),
    "state of a trainer": (
        without_weights("optimizer.pt", "trainer_state.json"),
        "optimizer.pt is a trainer's state, without the weights of the model",
    ),
    "DeepSpeed": (without_weights("zero_to_fp32.py"), "run zero_to_fp32.py first"),
    "FSDP": (without_weights("pytorch_model_fsdp_0"), "run accelerate merge-weights first"),
    "Lightning": (
        files("epoch=1.ckpt"),
        (
            "epoch=1.ckpt is a training state, as of Lightning; load it there, and save the model "
            "with save_pretrained"
        ),
    ),
    "llama.cpp": (without_weights("model-q8.gguf"), "model-q8.gguf is a model of llama.cpp; give "),
    "bundle": (
        files("manifest.json", "model.onnx"),
        "it is a bundle, of which gpt2flow restore writes a checkpoint",
    ),
    "pointer": (as_pointer, "is a pointer of Git LFS; fetch the file with git lfs pull"),
    "training state in a file": (
        training_state,
        (
            "'model_state_dict' is a dict instead of a tensor; it is a training state: save the "
            "model alone, with save_pretrained"
        ),
    ),
    "names of an adapter": (
        renamed(
            lambda name: f"base_model.model.{name}".replace(
                "c_attn.weight", "c_attn.base_layer.weight"
            )
        ),
        (
            "; they are those of an adapter; save it with PEFT's save_pretrained, and export the "
            "directory with its adapter_config.json"
        ),
    ),
    "another prefix": (
        renamed(lambda name: f"net.gpt.{name}"),
        "; they hold net.gpt.transformer.wte.weight: remove 'net.gpt.transformer.' from the names",
    ),
    "a prefix of some": (
        renamed(lambda name: name if "ln_f" in name else f"module.{name}"),
        "; they hold module.transformer.wte.weight: remove 'module.transformer.' from the names",
    ),
}


@pytest.mark.parametrize("damage, hint", HINTS.values(), ids=HINTS.keys())
def test_a_refusal_names_what_to_do(copy: Path, damage: Callable[[Path], None], hint: str) -> None:
    damage(copy)
    assert hint.format(copy) in refusal(copy)


@pytest.mark.parametrize(
    "name, hint",
    [
        ("epoch=1.ckpt", "epoch=1.ckpt is a training state, as of Lightning"),
        ("ckpt.pt", "ckpt.pt is a file of PyTorch; load it there, and save the model"),
        (SAFETENSORS, "give the directory that model.safetensors is in"),
    ],
)
def test_a_file_is_refused_with_what_to_give(tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / name).write_text("")
    assert f"{name} is not a directory; {hint}" in refusal(tmp_path / name)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("files_of_weights", ["one file", "shards"])
def test_the_prefix_of_a_wrapper_is_removed(
    checkpoint: Path, copy: Path, wrapper: str, files_of_weights: str
) -> None:
    renamed(lambda name: wrapper + name)(copy)
    if files_of_weights == "shards":
        shard(copy, ".safetensors", save_file)
    source, original = read_checkpoint(copy), read_checkpoint(checkpoint)
    assert source.warnings == (
        f"the names of the weights start with {wrapper!r}, which is left out",
    )
    for name in original.architecture.weight_shapes():
        np.testing.assert_array_equal(source.weights[name], original.weights[name])


def test_an_adapter_beside_a_whole_model_is_not_exported_silently(copy: Path) -> None:
    (copy / "adapter_config.json").write_text("{}")
    assert read_checkpoint(copy).warnings == (
        "adapter_config.json: the adapter beside the model is not exported",
    )
