"""Merging of a LoRA adapter into its base model."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import save_file

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.checkpoint.architecture import CONFIG_NAME, Architecture, complete_config
from gpt2flow.export.checkpoint.weight_files import WEIGHT_NAMES, find_weight_files
from gpt2flow.export.checkpoint.weights import open_weights
from gpt2flow.export.errors import AdapterError, CheckpointError
from gpt2flow.export.sources.adapter import (
    Adapter,
    AdapterWeights,
    Factors,
    read_adapter_weights,
)
from gpt2flow.export.sources.files import copy_beside_weights
from gpt2flow.files.documents import read_json

_EMBEDDING: Final = "wte"
_HEAD: Final = "lm_head"


def merge_adapter(
    adapter: Adapter, base: Path, target: Path, on_module: Callable[[int, int], None]
) -> None:
    """Write the checkpoint of a base model with an adapter merged.

    Args:
        adapter: Adapter to merge.
        base: Directory of the base model.
        target: Directory to write; it must be empty.
        on_module: Progress callback, called after each module with those done and in total.

    Raises:
        AdapterError: The adapter does not fit to the base model.
        CheckpointError: A file of one of them is damaged.
    """
    config = _read_base_config(adapter, base)
    architecture = Architecture.from_config(config)
    weights = open_weights(find_weight_files(base), architecture)
    merged = {name: weights[name] for name in architecture.weight_shapes()}
    update = read_adapter_weights(adapter.directory)
    head_before = merged.get(f"{_HEAD}.weight", merged[f"{_EMBEDDING}.weight"])
    _replace(merged, head_before, update)
    if _HEAD in update.factors:
        merged.setdefault(f"{_HEAD}.weight", head_before)
    for done, (module, factors) in enumerate(sorted(update.factors.items()), 1):
        _add(merged, module, factors, adapter)
        on_module(done, len(update.factors))
    config = _tie_or_untie(merged, head_before, config, architecture)
    (target / CONFIG_NAME).write_text(json.dumps(config, indent=2, sort_keys=True))
    _save(merged, target / WEIGHT_NAMES[0])
    copy_beside_weights(base, adapter.directory, target)


def _read_base_config(adapter: Adapter, base: Path) -> dict[str, Any]:
    """Return the configuration of the base model.

    Raises:
        AdapterError: There is none.
    """
    if not (base / CONFIG_NAME).is_file():
        raise AdapterError(
            f"{base}, the base model of {adapter.directory}, is no checkpoint: it has no "
            f"{CONFIG_NAME}; give another one with --base"
        )
    config = read_json(base / CONFIG_NAME, CheckpointError)
    if not isinstance(config, dict):
        raise CheckpointError(f"{base / CONFIG_NAME} does not hold a JSON object")
    return complete_config(config)


def _replace(
    merged: dict[str, FloatArray], head_before: FloatArray, update: AdapterWeights
) -> None:
    """Replace whole tensors, as of `modules_to_save` and of biases.

    Raises:
        AdapterError: The base model has no such tensor, or one of another shape.
    """
    for name, value in update.replaced.items():
        before = head_before if name == f"{_HEAD}.weight" else merged.get(name)
        if before is None:
            raise AdapterError(f"the adapter holds {name}, which its base model does not have")
        # A vocabulary may have grown with the adapter.
        resized = name in {f"{_EMBEDDING}.weight", f"{_HEAD}.weight"}
        if value.shape[resized:] != before.shape[resized:] or value.ndim != before.ndim:
            raise AdapterError(
                f"{name} has the shape {value.shape} in the adapter, and {before.shape} in its "
                "base model"
            )
        merged[name] = value


def _add(merged: dict[str, FloatArray], module: str, factors: Factors, adapter: Adapter) -> None:
    """Add the update of one module, in double precision.

    Raises:
        AdapterError: The base model has no such module, or the update does not fit to it.
    """
    name = f"{module}.weight"
    if name not in merged or merged[name].ndim != 2:
        raise AdapterError(f"the adapter holds {module}, which its base model does not have")
    down, up, weight = factors.down, factors.up, merged[name]
    if down is None or up is None:
        raise AdapterError(f"the adapter holds only one of the two matrices of {module}")
    # Conv1D and embeddings are [in, out], and the head is [out, in].
    outputs, inputs = weight.shape if module == _HEAD else weight.shape[::-1]
    rank = adapter.rank_of(module)
    if (down.shape, up.shape) != ((rank, inputs), (outputs, rank)):
        raise AdapterError(
            f"the matrices of {module} have the shapes {down.shape} and {up.shape}; the base model "
            f"and rank {rank} require {(rank, inputs)} and {(outputs, rank)}"
        )
    scaling = adapter.scaling_of(module)
    change = scaling * (up.astype(np.float64) @ down.astype(np.float64))
    merged[name] = (weight + (change if module == _HEAD else change.T)).astype(np.float32)
    if factors.bias is not None:
        _add_bias(merged, module, scaling * factors.bias)


def _add_bias(merged: dict[str, FloatArray], module: str, change: FloatArray) -> None:
    bias = merged.get(f"{module}.bias")
    if bias is None or bias.shape != change.shape:
        raise AdapterError(f"the adapter adds a bias to {module}, which has none of that shape")
    merged[f"{module}.bias"] = bias + change


def _tie_or_untie(
    merged: dict[str, FloatArray],
    head_before: FloatArray,
    config: Mapping[str, Any],
    architecture: Architecture,
) -> dict[str, Any]:
    """Return the configuration of the merged weights.

    A head that was tied to the embeddings stays as it was when an adapter changes only these.

    Raises:
        AdapterError: Embeddings and head have different numbers of rows.
    """
    embedding = merged[f"{_EMBEDDING}.weight"]
    if architecture.tie_word_embeddings and len(embedding) == len(head_before):
        merged.setdefault(f"{_HEAD}.weight", head_before)
    head = merged.get(f"{_HEAD}.weight")
    if head is not None and len(head) != len(embedding):
        raise AdapterError(
            f"the merged model has {len(embedding)} embeddings, and a head of {len(head)} rows"
        )
    tied = architecture.tie_word_embeddings and (head is None or np.array_equal(head, embedding))
    if tied:
        merged.pop(f"{_HEAD}.weight", None)
    return {**config, "vocab_size": len(embedding), "tie_word_embeddings": tied}


def _save(merged: Mapping[str, FloatArray], path: Path) -> None:
    tensors = {
        name if name.startswith(_HEAD) else f"transformer.{name}": np.ascontiguousarray(value)
        for name, value in merged.items()
    }
    save_file(tensors, path, metadata={"format": "pt"})
