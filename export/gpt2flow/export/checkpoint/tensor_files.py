"""Tensors of one weight file, by name.

Imports torch, which reads every file format and data type of GPT-2 checkpoints.
"""

import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.errors import CheckpointError, first_line

_LFS_POINTER: Final = b"version https://git-lfs"
_STATE_HINT: Final = "; it is a training state: save the model alone, with save_pretrained"

TensorReader = Callable[[], FloatArray]
"""Function that reads a tensor from its file as float32.

It may raise any error of the library that reads the format.
"""


def open_tensors(file: Path) -> dict[str, TensorReader]:
    """Return a reader for every tensor in a safetensors or `torch.save` file.

    Raises:
        CheckpointError: The file is of neither format, damaged, or holds other objects than
            tensors; the message names the file.
    """
    if _starts_with(file, _LFS_POINTER):
        raise CheckpointError(f"{file} is a pointer of Git LFS; fetch the file with git lfs pull")
    try:
        state = _open_safetensors(file) if file.suffix == ".safetensors" else _open_pickled(file)
    except pickle.UnpicklingError as error:
        # Torch's own message suggests loading the file without the safety check.
        raise CheckpointError(
            f"{file} cannot be read as weights: it is damaged, or holds other objects than "
            "tensors, which may run code when loaded"
        ) from error
    except Exception as error:  # The unpickler raises errors of any kind on damaged bytes.
        raise CheckpointError(f"{file} cannot be read as weights: {first_line(error)}") from error
    return {name: partial(_read_float32, read) for name, read in state.items()}


def _starts_with(file: Path, start: bytes) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(start)) == start


def _open_safetensors(file: Path) -> dict[str, Callable[[], torch.Tensor]]:
    tensors: Any = safe_open(file, framework="pt")
    return {name: partial(_read_safetensors, file, name) for name in tensors.keys()}  # noqa: SIM118 - not a dict


def _read_safetensors(file: Path, name: str) -> torch.Tensor:
    """Return a copy of a tensor, so that its file is unmapped."""
    tensors: Any = safe_open(file, framework="pt")
    copied: torch.Tensor = tensors.get_tensor(name).clone()
    return copied


def _open_pickled(file: Path) -> dict[str, Callable[[], torch.Tensor]]:
    # Memory-mapping requires torch's zip format, which is younger than the first checkpoints.
    mapped = zipfile.is_zipfile(file)
    state = torch.load(file, map_location="cpu", mmap=mapped, weights_only=True)
    if not isinstance(state, dict):
        raise TypeError(f"it holds a {type(state).__name__} instead of tensors by name")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            hint = _STATE_HINT if isinstance(tensor, dict) else ""
            raise TypeError(f"{name!r} is a {type(tensor).__name__} instead of a tensor{hint}")
    return {name: tensor.detach for name, tensor in state.items()}


def _read_float32(read: Callable[[], torch.Tensor]) -> FloatArray:
    tensor = read()
    if not tensor.is_floating_point():
        raise TypeError(f"its dtype is {tensor.dtype}, not floating-point")
    array: FloatArray = tensor.to(torch.float32).contiguous().numpy()
    return array
