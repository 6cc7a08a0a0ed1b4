"""The tensors of one file of weights, by name.

Imports torch, which reads every format and number type that GPT-2 checkpoints come in.
"""

import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.errors import CheckpointError, one_line

Reader = Callable[[], FloatArray]
"""Reads a tensor as float32 anew each time; raises whatever the library of its format does."""


def open_tensors(file: Path) -> dict[str, Reader]:
    """Return a reader for every tensor of a file of safetensors, or one that torch saved.

    Raises:
        CheckpointError: It is neither, damaged, or holds something else; the message names it.
    """
    try:
        state = _open_safetensors(file) if file.suffix == ".safetensors" else _open_saved(file)
    except pickle.UnpicklingError as error:
        # Torch's own words advise to run what is in the file.
        raise CheckpointError(
            f"{file} cannot be read as weights: it is damaged, or holds other objects than "
            "tensors, which may run code"
        ) from error
    except Exception as error:  # Damaged bytes lead the unpickler to errors of any kind.
        raise CheckpointError(f"{file} cannot be read as weights: {one_line(error)}") from error
    return {name: partial(_as_float32, read) for name, read in state.items()}


def _open_safetensors(file: Path) -> dict[str, Callable[[], torch.Tensor]]:
    tensors: Any = safe_open(file, framework="pt")
    return {name: partial(tensors.get_tensor, name) for name in tensors.keys()}  # noqa: SIM118 - not a dict


def _open_saved(file: Path) -> dict[str, Callable[[], torch.Tensor]]:
    # Only the zip format of torch can be mapped into memory; the first checkpoints are older.
    mapped = zipfile.is_zipfile(file)
    state = torch.load(file, map_location="cpu", mmap=mapped, weights_only=True)
    if not isinstance(state, dict):
        raise TypeError(f"it holds no tensors by name, but a {type(state).__name__}")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name!r} is no tensor, but a {type(tensor).__name__}")
    return {name: tensor.detach for name, tensor in state.items()}


def _as_float32(read: Callable[[], torch.Tensor]) -> FloatArray:
    tensor = read()
    if not tensor.is_floating_point():
        raise TypeError(f"its numbers are {tensor.dtype}, not floating-point")
    array: FloatArray = tensor.to(torch.float32).contiguous().numpy()
    return array
