"""Weights of a checkpoint, read one tensor at a time."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.checkpoint.hints import names_hint
from gpt2flow.export.checkpoint.tensor_files import TensorReader, open_tensors
from gpt2flow.export.checkpoint.weight_files import WeightFiles
from gpt2flow.export.errors import CheckpointError, first_line

_PREFIX: Final = "transformer."
# Prefixes of a model in a wrapper: for several devices, and of `torch.compile`.
_WRAPPERS: Final = ("module.", "_orig_mod.")
_EMBEDDING: Final = "wte.weight"
_HEAD: Final = "lm_head.weight"
# GPT-2's head has no bias, so the graph would ignore one.
_HEAD_BIAS: Final = "lm_head.bias"
# Causal masks, which older checkpoints save as buffers.
_BUFFER: Final = re.compile(r"h\.\d+\.attn\.(masked_)?bias")


class Weights(Mapping[str, FloatArray]):
    """Tensors of a checkpoint by name, as float32, read on access.

    Names are those below `transformer.`, a prefix that some checkpoints omit, and
    `lm_head.weight`.

    Attributes:
        wrapper: Prefix of a wrapper, which all names had in the files; often empty.
    """

    def __init__(self, readers: Mapping[str, TensorReader], wrapper: str = "") -> None:
        self.wrapper = wrapper
        self._readers = readers

    def __getitem__(self, name: str) -> FloatArray:
        reader = self._readers[name]
        try:
            return reader()
        except Exception as error:  # The libraries that read the formats raise any kind of error.
            raise CheckpointError(f"weight {name} cannot be read: {first_line(error)}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def open_weights(files: WeightFiles, architecture: Architecture) -> Weights:
    """Open weight files and check them against the architecture.

    Raises:
        CheckpointError: A file is unreadable. Or a tensor is missing, unknown, duplicated, of
            another shape, or not finite. The message names the file or the tensor.
    """
    found = [(file, open_tensors(file)) for file in files.paths]
    wrapper = _find_wrapper([name for _, tensors in found for name in tensors])
    readers: dict[str, TensorReader] = {}
    for file, tensors in found:
        for full_name, reader in tensors.items():
            name = full_name.removeprefix(wrapper).removeprefix(_PREFIX)
            if name in readers:
                raise CheckpointError(f"the weights hold {name} twice, the second time in {file}")
            readers[name] = reader
    weights = Weights(readers, wrapper)
    _check_names(weights, architecture, files.weight_map)
    _check_values(weights, architecture)
    return weights


def _find_wrapper(names: list[str]) -> str:
    """Return the prefix of wrappers that all names have."""
    wrapper = ""
    while names and (
        inner := [
            each for each in _WRAPPERS if all(name.startswith(wrapper + each) for name in names)
        ]
    ):
        wrapper += inner[0]
    return wrapper


def _check_names(
    weights: Weights, architecture: Architecture, weight_map: Mapping[str, str]
) -> None:
    expected = architecture.weight_shapes()
    missing = [name for name in expected if name not in weights]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        shard = weight_map.get(_PREFIX + missing[0]) or weight_map.get(missing[0])
        hint = f"; the index maps it to {shard}" if shard else names_hint(missing[0], weights)
        raise CheckpointError(
            f"the weights lack {missing[0]}{more}, which config.json requires{hint}"
        )
    # The graph would ignore an unexpected weight. In the body that changes the result; other
    # heads, which some checkpoints have, are irrelevant.
    for name in weights:
        relevant = name.startswith(("h.", "wte.", "wpe.", "ln_f.")) or name == _HEAD_BIAS
        if relevant and name not in expected and not _BUFFER.fullmatch(name):
            raise CheckpointError(f"the weights hold {name}, which config.json does not define")


def _check_values(weights: Weights, architecture: Architecture) -> None:
    for name, shape in architecture.weight_shapes().items():
        weight = weights[name]
        if weight.shape != shape:
            raise CheckpointError(
                f"weight {name} has shape {weight.shape}; config.json requires {shape}"
            )
        if not np.isfinite(weight).all():
            raise CheckpointError(f"weight {name} holds a value that is NaN or infinite")
    # If the two differ, releases of transformers disagree on which one to use.
    stored_head = architecture.tie_word_embeddings and _HEAD in weights
    if stored_head and not np.array_equal(weights[_HEAD], weights[_EMBEDDING]):
        raise CheckpointError(
            f"weight {_HEAD} differs from {_EMBEDDING}, to which config.json ties it; set "
            "tie_word_embeddings to false to keep it, or remove it"
        )
