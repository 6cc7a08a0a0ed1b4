"""Mixed precision: sensitivity of matrices, and choice of those in 8 bits.

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
    """Measure the divergence that quantizing each matrix alone causes.

    Args:
        model: Model with its original weights.
        windows: Token windows to measure on, int64 [tokens] each.
        blocks: Quantized matrices of the layers, by name.
        on_matrix: Progress callback, called after each matrix with the matrices done and in total.

    Returns:
        Mean Kullback-Leibler divergence of the predictions from the original model's, in nats, by
        the name of the matrix.
    """
    rows = [model.embed(window) for window in windows]
    layer_inputs = []
    for layer in range(model.architecture.layers):
        layer_inputs.append(rows)
        rows = [model.run_layer(layer, hidden) for hidden in rows]
    expected = [model.log_probabilities(hidden) for hidden in rows]
    divergence = {}
    for done, (name, quantized) in enumerate(blocks.items(), 1):
        layer = int(name.split(".")[1])
        with model.replaced_weight(name, quantized):
            divergence[name] = _divergence(model, layer, layer_inputs[layer], expected)
        on_matrix(done, len(blocks))
    return divergence


def choose_mixed_precision(
    divergence: Mapping[str, float], extra_bytes: Mapping[str, int], budget: int
) -> frozenset[str]:
    """Choose the matrices to keep in 8 bits.

    The choice is greedy, by divergence saved per added byte. A matrix that exceeds the remaining
    budget is skipped; smaller ones after it may still fit.

    Args:
        divergence: Divergence caused by 4 bits, by the name of the matrix.
        extra_bytes: Bytes that 8 bits would add, by the name of the matrix.
        budget: Largest sum of added bytes.

    Returns:
        The names of the chosen matrices.
    """
    kept = set()
    by_saving = sorted(divergence, key=lambda name: divergence[name] / extra_bytes[name])
    for name in reversed(by_saving):
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
    """Return the mean divergence of the predictions, in nats.

    Args:
        model: Model with one matrix of `layer` quantized.
        layer: Index of the layer, from which on the model is run.
        rows: Inputs of that layer, float32 [1, tokens, channels] each.
        expected: Log-probabilities of the original model, float32 [tokens, vocabulary] each.
    """
    total, tokens = 0.0, 0
    for hidden, reference in zip(rows, expected, strict=True):
        output = hidden
        for later in range(layer, model.architecture.layers):
            output = model.run_layer(later, output)
        difference = reference - model.log_probabilities(output)
        total += float((reference.exp() * difference).sum())
        tokens += len(reference)
    return total / tokens
