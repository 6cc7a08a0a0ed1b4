"""Scales of an int8 KV cache, from the keys and values of a text."""

from collections.abc import Callable, Sequence

import numpy as np

from gpt2flow.export.architecture import Architecture
from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.cache import LARGEST_INT8, CacheScales
from gpt2flow.export.reference_model import ReferenceModel


def calibrate_cache(
    reference: ReferenceModel,
    architecture: Architecture,
    windows: Sequence[TokenArray],
    on_window: Callable[[int, int], None],
) -> CacheScales:
    """Returns scales with which the largest key and value of every channel just fit into int8.

    Args:
        reference: Computes keys and values.
        architecture: Its shape.
        windows: The tokens to look at, int64 [tokens] each.
        on_window: Told how many windows are done, and how many there are.
    """
    shape = (2, architecture.layers, architecture.heads, architecture.head_size)
    largest: FloatArray = np.zeros(shape, np.float32)
    for done, window in enumerate(windows, 1):
        for layer, parts in enumerate(reference.keys_and_values(window)):
            for part, numbers in enumerate(parts):
                np.maximum(
                    largest[part, layer], np.abs(numbers).max(axis=1), out=largest[part, layer]
                )
        on_window(done, len(windows))
    # A channel that is always zero takes any scale.
    key, value = np.where(largest > 0, largest / LARGEST_INT8, 1).astype(np.float32)
    return CacheScales(key, value)
