"""The weights of a checkpoint, read one tensor at a time.

Imports torch, which reads every format and number type that GPT-2 checkpoints come in.
"""

import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from gpt2flow.export.architecture import Architecture
from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.errors import CheckpointError, one_line

_PREFIX: Final = "transformer."
# Causal masks that older checkpoints hold as buffers.
_BUFFER: Final = re.compile(r"h\.\d+\.attn\.(masked_)?bias")


class Weights(Mapping[str, FloatArray]):
    """The tensors of a checkpoint by name, as float32; each is read when it is asked for.

    Names are those below `transformer.`, which some checkpoints leave out, and `lm_head.weight`.
    """

    def __init__(self, readers: Mapping[str, Callable[[], torch.Tensor]]) -> None:
        self._readers = {name.removeprefix(_PREFIX): reader for name, reader in readers.items()}

    def __getitem__(self, name: str) -> FloatArray:
        array: FloatArray = self._readers[name]().to(torch.float32).contiguous().numpy()
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def open_weights(files: list[Path], architecture: Architecture) -> Weights:
    """Opens weight files and checks that they hold just what the architecture needs.

    Raises:
        CheckpointError: A file cannot be read, or a tensor is missing, unknown, of another shape,
            or holds a number that is not finite; the message names it.
    """
    readers: dict[str, Callable[[], torch.Tensor]] = {}
    for file in files:
        readers |= _open(file)
    weights = Weights(readers)
    _check(weights, architecture)
    return weights


def _open(file: Path) -> dict[str, Callable[[], torch.Tensor]]:
    try:
        if file.suffix == ".safetensors":
            tensors: Any = safe_open(file, framework="pt")
            return {name: partial(tensors.get_tensor, name) for name in tensors.keys()}  # noqa: SIM118 - not a dict
        # Only the zip format of torch can be mapped into memory; the first checkpoints are older.
        state = torch.load(
            file, map_location="cpu", mmap=zipfile.is_zipfile(file), weights_only=True
        )
    except (SafetensorError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{file} cannot be read as weights: {one_line(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise CheckpointError(f"{file} does not hold tensors by name")
    return {name: tensor.detach for name, tensor in state.items()}


def _check(weights: Weights, architecture: Architecture) -> None:
    expected = architecture.weight_shapes()
    missing = [name for name in expected if name not in weights]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(f"the weights lack {missing[0]}{more}, which config.json asks for")
    # A weight of the body that the graph would leave out changes what the model computes; other
    # heads, which some checkpoints carry, do not.
    for name in weights:
        in_body = name.startswith(("h.", "wte.", "wpe.", "ln_f."))
        if in_body and name not in expected and not _BUFFER.fullmatch(name):
            raise CheckpointError(f"the weights hold {name}, which config.json does not ask for")
    for name, shape in expected.items():
        weight = weights[name]
        if weight.shape != shape:
            raise CheckpointError(
                f"weight {name} has shape {weight.shape}; config.json asks for {shape}"
            )
        if not np.isfinite(weight).all():
            raise CheckpointError(f"weight {name} holds a number that is NaN or infinite")
