"""The KV cache of the serving graph: its names, its numbers and their scales."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.graph.head_padding import padded_head_size
from gpt2flow.export.graph.model_writer import tensor_info

PARTS: Final = ("key", "value")
LARGEST_INT8: Final = 127


@dataclass(frozen=True, slots=True)
class CacheScales:
    """What a number of an int8 cache is multiplied with, for each channel.

    Attributes:
        key: float32 [layers, heads, head_size].
        value: As `key`.
    """

    key: FloatArray
    value: FloatArray

    def of(self, layer: int, part: str, head_size: int) -> FloatArray:
        """Return the scales of a layer for heads padded to a size, [1, heads, 1, head_size]."""
        scales: FloatArray = getattr(self, part)[layer]
        # Channels that only pad a head are zero, for which any scale does.
        padding = [(0, 0), (0, head_size - scales.shape[-1])]
        padded: FloatArray = np.pad(scales, padding, constant_values=1)
        return padded[np.newaxis, :, np.newaxis]


@dataclass(frozen=True, slots=True)
class Cache:
    """The KV cache of a graph.

    Attributes:
        architecture: The shape of the model.
        scales: Those of an int8 cache; None: it is float32.
    """

    architecture: Architecture
    scales: CacheScales | None = None

    @property
    def head_size(self) -> int:
        """Channels of a head, padded."""
        return padded_head_size(self.architecture)

    def past_infos(self) -> list[Any]:
        """Return descriptions of the past keys and values of all layers."""
        return [
            self._info(name)
            for layer in range(self.architecture.layers)
            for name in past_names(layer)
        ]

    def present_infos(self, scope: str) -> list[Any]:
        """Return descriptions of the present keys and values of all layers."""
        layers = range(self.architecture.layers)
        return [info for layer in layers for info in self.present_infos_of(scope, layer)]

    def present_infos_of(self, scope: str, layer: int) -> list[Any]:
        """Return descriptions of the present keys and values of one layer."""
        return [self._info(name) for name in present_names(scope, layer)]

    def _info(self, name: str) -> Any:
        dtype = np.float32 if self.scales is None else np.int8
        return tensor_info(
            name, dtype, ["batch", self.architecture.heads, "capacity", self.head_size]
        )


def past_names(layer: int) -> list[str]:
    """Return the inputs that hold the keys and the values of a layer."""
    return [f"past_key_values.{layer}.{part}" for part in PARTS]


def present_names(scope: str, layer: int) -> list[str]:
    """Return the names, in a scope, of the past of a layer with the new tokens added."""
    return [f"{scope}present.{layer}.{part}" for part in PARTS]
