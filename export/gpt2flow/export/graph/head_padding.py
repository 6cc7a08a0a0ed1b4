"""Attention heads padded with zeros to a size that the attention operator takes."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.checkpoint.architecture import Architecture

# `GroupQueryAttention` refuses head sizes that this does not divide.
HEAD_MULTIPLE: Final = 8

_IN_PROJECTION: Final = re.compile(r"h\.\d+\.attn\.c_attn\.(weight|bias)")
_OUT_PROJECTION: Final = re.compile(r"h\.\d+\.attn\.c_proj\.weight")


def padded_head_size(architecture: Architecture) -> int:
    """Return the channels of a head in the KV cache."""
    return -(-architecture.head_size // HEAD_MULTIPLE) * HEAD_MULTIPLE


class PaddedHeads(Mapping[str, FloatArray]):
    """The weights of a model with its attention heads padded.

    A channel that is zero in query, key and value adds nothing to any product, so the model
    computes the same; its scale must stay that of the size without padding.
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
        """Return which of the channels of parts · heads are no padding."""
        channels = np.arange(self.channels(parts))
        return channels[channels % (self._head_size + self._padding) < self._head_size]

    def channels(self, parts: int) -> int:
        """Return how many channels parts · heads have with their padding."""
        return parts * self._heads * (self._head_size + self._padding)

    def _pad(self, weight: FloatArray, axis: int, parts: int) -> FloatArray:
        """Pad every head along an axis of parts · heads · head_size channels."""
        channels = np.moveaxis(weight, axis, 0)
        rest = channels.shape[1:]
        split = channels.reshape(parts * self._heads, self._head_size, *rest)
        padded = np.pad(split, [(0, 0), (0, self._padding)] + [(0, 0)] * len(rest))
        return np.ascontiguousarray(np.moveaxis(padded.reshape(-1, *rest), 0, axis))
