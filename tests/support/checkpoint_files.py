"""Rewriting of a checkpoint's files, in other formats or damaged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

SAFETENSORS = "model.safetensors"
BIN = "pytorch_model.bin"
WTE = "transformer.wte.weight"
HEAD = "lm_head.weight"


def change_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def replace_weights(directory: Path, write: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(directory / SAFETENSORS).items()}
    (directory / SAFETENSORS).unlink()
    write(tensors)


def shard(directory: Path, suffix: str, write: Callable[[Any, Path], None]) -> None:
    """Split the weights into two shards with an index."""

    def write_shards(tensors: dict[str, torch.Tensor]) -> None:
        names = sorted(tensors)
        weight_map: dict[str, str] = {}
        for number, part in enumerate((names[::2], names[1::2]), start=1):
            file = f"part-{number}{suffix}"
            write({name: tensors[name] for name in part}, directory / file)
            weight_map |= dict.fromkeys(part, file)
        single = SAFETENSORS if suffix == ".safetensors" else BIN
        (directory / f"{single}.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": weight_map})
        )

    replace_weights(directory, write_shards)


def save_as_bin(directory: Path) -> None:
    replace_weights(directory, lambda tensors: torch.save(tensors, directory / BIN))


def save_as_legacy_bin(directory: Path) -> None:
    replace_weights(
        directory,
        lambda tensors: torch.save(tensors, directory / BIN, _use_new_zipfile_serialization=False),
    )


def save_without_prefix(directory: Path) -> None:
    """Save names without `transformer.`, as the first converted checkpoints have."""

    def write(tensors: dict[str, torch.Tensor]) -> None:
        bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        bare["h.0.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
        bare["h.0.attn.masked_bias"] = torch.tensor(-1e4)
        bare["lm_head.weight"] = bare["wte.weight"].clone()
        torch.save(bare, directory / BIN)

    replace_weights(directory, write)


def rewrite_as_first_gpt2(directory: Path) -> None:
    """Rewrite a checkpoint like the first `gpt2` on the hub.

    Its configuration has other fields, and names the class of a model without a head.
    """
    config = json.loads((directory / "config.json").read_text())
    kept = {name: config[name] for name in ("model_type", "n_embd", "n_head", "n_layer")}
    kept |= {name: config[name] for name in ("vocab_size", "bos_token_id", "eos_token_id")}
    old = {
        "activation_function": "gelu_new",
        "architectures": ["GPT2Model"],
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "n_ctx": 64,
        "n_positions": 64,
        "summary_type": "cls_index",
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    }
    (directory / "config.json").write_text(json.dumps(kept | old))
    save_without_prefix(directory)


FORMATS: dict[str, Callable[[Path], None]] = {
    "sharded safetensors": lambda directory: shard(directory, ".safetensors", save_file),
    "sharded bin": lambda directory: shard(directory, ".bin", torch.save),
    "bin": save_as_bin,
    "bin before zip": save_as_legacy_bin,
    "no prefix, with buffers": save_without_prefix,
}


def set_weight(name: str, position: int, value: float) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        tensors = load_file(directory / SAFETENSORS)
        tensors[name].view(-1)[position] = value
        save_file(tensors, directory / SAFETENSORS)

    return write


def edit_weights(edit: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        tensors = load_file(directory / SAFETENSORS)
        edit(tensors)
        save_file(tensors, directory / SAFETENSORS)

    return write


def truncate(name: str) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        data = (directory / name).read_bytes()
        (directory / name).write_bytes(data[: len(data) // 2])

    return write
