"""KV cache of the serving graph: tensor names, data type and scales."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.graph.head_padding import padded_head_size
from gpt2flow.export.graph.model_writer import make_value_info

PARTS: Final = ("key", "value")

KEYS_OF_BLOCK: Final = 16
"""Number of positions whose keys lie side by side, channel by channel."""


@dataclass(frozen=True, slots=True)
class CacheScales:
    """Quantization scales of an int8 KV cache, one per channel.

    Attributes:
        key: Scales of the keys, float32 [layers, heads, head_size].
        value: Scales of the values, of the same shape.
    """

    key: FloatArray
    value: FloatArray


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

    def scales_of(self, layer: int, part: str) -> FloatArray:
        """Return the scales of a layer's keys or values.

        The cache must be int8.

        Args:
            layer: Index of the layer, counted from 0.
            part: `key` or `value`.

        Returns:
            float32 [heads, head_size].
        """
        scales: FloatArray = getattr(self.scales, part)[layer]
        # Padding channels are always zero, so any scale represents them.
        padding = [(0, 0), (0, self.head_size - scales.shape[-1])]
        padded: FloatArray = np.pad(scales, padding, constant_values=1)
        return padded

    def past_value_infos(self) -> list[Any]:
        """Return the value infos of all past keys and values."""
        return self._infos(past_names)

    def present_value_infos(self) -> list[Any]:
        """Return the value infos of all present keys and values."""
        return self._infos(present_names)

    def _infos(self, names: Callable[[int], list[str]]) -> list[Any]:
        dtype = np.float32 if self.scales is None else np.int8
        heads, size = self.architecture.heads, self.head_size
        n = 1 if self.scales is None else 2
        shapes: tuple[list[str | int], ...] = (
            ["slots", heads, f"capacity / {KEYS_OF_BLOCK}", size // n, KEYS_OF_BLOCK, n],
            ["slots", heads, "capacity", size],
        )
        return [
            make_value_info(name, dtype, shape)
            for layer in range(self.architecture.layers)
            for name, shape in zip(names(layer), shapes, strict=True)
        ]


def past_names(layer: int) -> list[str]:
    """Return the graph inputs that hold a layer's keys and values."""
    return [f"past_key_values.{layer}.{part}" for part in PARTS]


def present_names(layer: int) -> list[str]:
    """Return the graph outputs that hold a layer's updated keys and values."""
    return [f"present.{layer}.{part}" for part in PARTS]
