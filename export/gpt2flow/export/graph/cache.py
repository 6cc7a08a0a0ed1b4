"""KV cache of the serving graph: tensor names, data type and scales."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.graph.head_padding import padded_head_size
from gpt2flow.export.graph.model_writer import make_value_info

PARTS: Final = ("key", "value")


@dataclass(frozen=True, slots=True)
class CacheScales:
    """Quantization scales of an int8 KV cache, one per channel.

    Attributes:
        key: Scales of the keys, float32 [layers, heads, head_size].
        value: Scales of the values, of the same shape.
    """

    key: FloatArray
    value: FloatArray

    def for_layer(self, layer: int, part: str, head_size: int) -> FloatArray:
        """Return the scales of the keys or values of a layer.

        Args:
            layer: Index of the layer, counted from 0.
            part: `key` or `value`.
            head_size: Padded number of channels of a head.

        Returns:
            float32 [1, heads, 1, head_size].
        """
        scales: FloatArray = getattr(self, part)[layer]
        # Padding channels are always zero, so any scale represents them.
        padding = [(0, 0), (0, head_size - scales.shape[-1])]
        padded: FloatArray = np.pad(scales, padding, constant_values=1)
        return padded[np.newaxis, :, np.newaxis]


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """Layout of a graph's KV cache.

    Attributes:
        architecture: Architecture of the model.
        scales: Scales of an int8 cache; None means a float32 cache.
    """

    architecture: Architecture
    scales: CacheScales | None = None

    @property
    def head_size(self) -> int:
        """Number of channels of a head, padded."""
        return padded_head_size(self.architecture)

    def past_value_infos(self) -> list[Any]:
        """Return the value infos of all past keys and values."""
        return [
            self._info(name)
            for layer in range(self.architecture.layers)
            for name in past_names(layer)
        ]

    def present_value_infos(self, scope: str) -> list[Any]:
        """Return the value infos of all present keys and values."""
        layers = range(self.architecture.layers)
        return [info for layer in layers for info in self.layer_present_value_infos(scope, layer)]

    def layer_present_value_infos(self, scope: str, layer: int) -> list[Any]:
        """Return the value infos of one layer's present keys and values."""
        return [self._info(name) for name in present_names(scope, layer)]

    def _info(self, name: str) -> Any:
        dtype = np.float32 if self.scales is None else np.int8
        return make_value_info(
            name, dtype, ["batch", self.architecture.heads, "capacity", self.head_size]
        )


def past_names(layer: int) -> list[str]:
    """Return the graph inputs that hold a layer's keys and values."""
    return [f"past_key_values.{layer}.{part}" for part in PARTS]


def present_names(scope: str, layer: int) -> list[str]:
    """Return the names of a layer's keys and values, new tokens included.

    Args:
        scope: Prefix of the names; empty for the outputs of the graph.
        layer: Index of the layer, counted from 0.
    """
    return [f"{scope}present.{layer}.{part}" for part in PARTS]
