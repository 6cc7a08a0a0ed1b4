"""Zero-padding of attention heads to a size that the attention operator accepts."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.checkpoint.architecture import Architecture

# `RaggedAttention` requires head sizes to be a multiple of this.
HEAD_MULTIPLE: Final = 16

_IN_PROJECTION: Final = re.compile(r"h\.\d+\.attn\.c_attn\.(weight|bias)")
_OUT_PROJECTION: Final = re.compile(r"h\.\d+\.attn\.c_proj\.weight")


def padded_head_size(architecture: Architecture) -> int:
    """Return the number of channels of a head in the KV cache."""
    return -(-architecture.head_size // HEAD_MULTIPLE) * HEAD_MULTIPLE


class PaddedHeads(Mapping[str, FloatArray]):
    """Weights of a model with its attention heads padded with zeros.

    Channels that are zero in query, key and value add nothing to any product, so the model's
    function is unchanged. The attention scale must stay that of the unpadded head size.
    """

    def __init__(self, weights: Mapping[str, FloatArray], architecture: Architecture) -> None:
        self._weights = weights
        self._heads = architecture.heads
        self._head_size = architecture.head_size
        self._padding = padded_head_size(architecture) - architecture.head_size

    def __getitem__(self, name: str) -> FloatArray:
        weight = self._weights[name]
        if self._padding and _IN_PROJECTION.fullmatch(name):
            return self._pad(weight, axis=-1, parts=3)
        if self._padding and _OUT_PROJECTION.fullmatch(name):
            return self._pad(weight, axis=0, parts=1)
        return weight

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def strip(self, name: str, weight: FloatArray) -> FloatArray:
        """Return a padded weight without its padding."""
        if self._padding and _IN_PROJECTION.fullmatch(name):
            return weight[..., self.real_channels(parts=3)]
        if self._padding and _OUT_PROJECTION.fullmatch(name):
            return weight[self.real_channels(parts=1)]
        return weight

    def real_channels(self, parts: int) -> TokenArray:
        """Return the indices of the channels that are not padding.

        Args:
            parts: Number of tensors concatenated along the channels: 3 for query, key and value.
        """
        channels = np.arange(self.channels(parts))
        return channels[channels % (self._head_size + self._padding) < self._head_size]

    def channels(self, parts: int) -> int:
        """Return the number of channels, padding included.

        Args:
            parts: Number of tensors concatenated along the channels.
        """
        return parts * self._heads * (self._head_size + self._padding)

    def _pad(self, weight: FloatArray, axis: int, parts: int) -> FloatArray:
        """Pad every head along an axis of parts · heads · head_size."""
        channels = np.moveaxis(weight, axis, 0)
        rest = channels.shape[1:]
        split = channels.reshape(parts * self._heads, self._head_size, *rest)
        padded = np.pad(split, [(0, 0), (0, self._padding)] + [(0, 0)] * len(rest))
        return np.ascontiguousarray(np.moveaxis(padded.reshape(-1, *rest), 0, axis))
