"""Mixed precision: which matrices keep 8 bits, by what 4 bits in each of them cost.

Imports torch and transformers, which takes seconds.
"""

from collections.abc import Callable, Mapping, Sequence

import torch

from gpt2flow.export.arrays import TokenArray
from gpt2flow.export.quantization.layerwise import LayerwiseModel
from gpt2flow.export.quantization.rounding import BlockMatrix


def measure_sensitivity(
    model: LayerwiseModel,
    windows: Sequence[TokenArray],
    blocks: Mapping[str, BlockMatrix],
    on_matrix: Callable[[int, int], None],
) -> dict[str, float]:
    """Return the mean KL divergence that quantizing each matrix alone causes, in nats.

    Args:
        model: The model as it was trained.
        windows: The tokens to measure on, int64 [tokens] each.
        blocks: The quantized matrices, by name.
        on_matrix: Told how many matrices are done, and how many there are.
    """
    rows = [model.embed(window) for window in windows]
    entering = []
    for layer in range(model.architecture.layers):
        entering.append(rows)
        rows = [model.run_layer(layer, hidden) for hidden in rows]
    expected = [model.log_probabilities(hidden) for hidden in rows]
    divergence = {}
    for done, (name, quantized) in enumerate(blocks.items(), 1):
        layer = int(name.split(".")[1])
        with model.exchanged(name, quantized):
            divergence[name] = _divergence(model, layer, entering[layer], expected)
        on_matrix(done, len(blocks))
    return divergence


def choose_kept(
    divergence: Mapping[str, float], extra_bytes: Mapping[str, int], budget: int
) -> frozenset[str]:
    """Return the matrices that keep 8 bits: those that gain most for a byte, within a budget.

    Args:
        divergence: What 4 bits in a matrix cost.
        extra_bytes: How many bytes more it has in 8 bits.
        budget: How many bytes more all of them may have.
    """
    kept = set()
    by_gain = sorted(divergence, key=lambda name: divergence[name] / extra_bytes[name])
    for name in reversed(by_gain):
        if extra_bytes[name] <= budget:
            budget -= extra_bytes[name]
            kept.add(name)
    return frozenset(kept)


def _divergence(
    model: LayerwiseModel,
    layer: int,
    rows: Sequence[torch.Tensor],
    expected: Sequence[torch.Tensor],
) -> float:
    total, tokens = 0.0, 0
    for hidden, reference in zip(rows, expected, strict=True):
        left = hidden
        for later in range(layer, model.architecture.layers):
            left = model.run_layer(later, left)
        difference = reference - model.log_probabilities(left)
        total += float((reference.exp() * difference).sum())
        tokens += len(reference)
    return total / tokens
