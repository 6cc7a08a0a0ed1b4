"""The weights of a checkpoint, read one tensor at a time."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.checkpoint.tensor_files import Reader, open_tensors
from gpt2flow.export.checkpoint.weight_files import WeightFiles
from gpt2flow.export.errors import CheckpointError, one_line

_PREFIX: Final = "transformer."
_EMBEDDING: Final = "wte.weight"
_HEAD: Final = "lm_head.weight"
# GPT-2's head has no bias; one would be left out of the graph.
_HEAD_BIAS: Final = "lm_head.bias"
# Causal masks that older checkpoints hold as buffers.
_BUFFER: Final = re.compile(r"h\.\d+\.attn\.(masked_)?bias")


class Weights(Mapping[str, FloatArray]):
    """The tensors of a checkpoint by name, as float32; each is read when it is asked for.

    Names are those below `transformer.`, which some checkpoints leave out, and `lm_head.weight`.
    """

    def __init__(self, readers: Mapping[str, Reader]) -> None:
        self._readers = readers

    def __getitem__(self, name: str) -> FloatArray:
        reader = self._readers[name]
        try:
            return reader()
        except Exception as error:  # The libraries that read the formats raise many kinds.
            raise CheckpointError(f"weight {name} cannot be read: {one_line(error)}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def open_weights(files: WeightFiles, architecture: Architecture) -> Weights:
    """Open weight files and checks that they hold just what the architecture needs.

    Raises:
        CheckpointError: A file cannot be read, or a tensor is missing, unknown, there twice, of
            another shape, or holds a number that is not finite; the message names it.
    """
    readers: dict[str, Reader] = {}
    for file in files.paths:
        for full_name, reader in open_tensors(file).items():
            name = full_name.removeprefix(_PREFIX)
            if name in readers:
                raise CheckpointError(f"the weights hold {name} twice, once more in {file}")
            readers[name] = reader
    weights = Weights(readers)
    _check_names(weights, architecture, files.places)
    _check_numbers(weights, architecture)
    return weights


def _check_names(weights: Weights, architecture: Architecture, places: Mapping[str, str]) -> None:
    expected = architecture.weight_shapes()
    missing = [name for name in expected if name not in weights]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        place = places.get(_PREFIX + missing[0]) or places.get(missing[0])
        hint = f"; by its index, {place} holds it" if place else ""
        raise CheckpointError(
            f"the weights lack {missing[0]}{more}, which config.json asks for{hint}"
        )
    # A weight of the body that the graph would leave out changes what the model computes; other
    # heads, which some checkpoints carry, do not.
    for name in weights:
        matters = name.startswith(("h.", "wte.", "wpe.", "ln_f.")) or name == _HEAD_BIAS
        if matters and name not in expected and not _BUFFER.fullmatch(name):
            raise CheckpointError(f"the weights hold {name}, which config.json does not ask for")


def _check_numbers(weights: Weights, architecture: Architecture) -> None:
    for name, shape in architecture.weight_shapes().items():
        weight = weights[name]
        if weight.shape != shape:
            raise CheckpointError(
                f"weight {name} has shape {weight.shape}; config.json asks for {shape}"
            )
        if not np.isfinite(weight).all():
            raise CheckpointError(f"weight {name} holds a number that is NaN or infinite")
    # Releases of transformers differ in which of the two they take then.
    stored_head = architecture.tie_word_embeddings and _HEAD in weights
    if stored_head and not np.array_equal(weights[_HEAD], weights[_EMBEDDING]):
        raise CheckpointError(
            f"weight {_HEAD} differs from {_EMBEDDING}, to which config.json ties it; set "
            "tie_word_embeddings to false to keep it, or remove it"
        )
