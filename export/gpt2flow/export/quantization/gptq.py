"""GPTQ: quantization that minimizes the error of a matrix's product.

The rows of the weight, one per input channel, are rounded one after the other. The rows that follow
compensate the rounding error of each, as far as their inputs correlate on a calibration text. The
method is that of Frantar et al., 2022, arXiv:2210.17323.

onnxruntime's own GPTQ returns no scales. Recovering them by rounding its output costs more quality
than GPTQ gains; docs/quantization.md has the figures.
"""

from typing import Final

import torch

from gpt2flow.export.quantization.rounding import BlockMatrix
from gpt2flow.export.recipe import Storage

# Share of the diagonal's mean that is added to it, so that unused input directions stay stable.
_DAMPING: Final = 0.01
# Candidate scales, as shares of the one that covers the full range of a block.
_SHRINKAGES: Final = tuple(1 - step / 50 for step in range(26))


def quantize_gptq(weight: torch.Tensor, hessian: torch.Tensor, storage: Storage) -> BlockMatrix:
    """Quantize a matrix, symmetrically in each block.

    Args:
        weight: float32 [in, out]; the block size must divide `in`.
        hessian: float32 [in, in], the sum of input · inputᵀ over the tokens of a text.
        storage: Storage format, with a block size.

    Returns:
        The quantized matrix.

    Raises:
        ValueError: The block size does not divide the inputs.
    """
    inputs, outputs = weight.shape
    size = storage.block_size
    if not size or inputs % size:
        raise ValueError(f"{inputs} inputs do not divide into blocks of {size}")
    # The rows still to be rounded, with the errors of earlier rows compensated.
    remaining = weight.clone()
    half = 2 ** (storage.bits - 1)
    factor = _inverse_factor(hessian)
    codes = torch.empty(inputs, outputs)
    scales = torch.empty(inputs // size, outputs)
    for start in range(0, inputs, size):
        block = slice(start, start + size)
        scale = scales[start // size] = _best_scale(remaining[block], half)
        # Errors update this block at once, and all later blocks together at its end.
        errors = torch.empty(size, outputs)
        local = factor[block, block]
        for row in range(size):
            current = remaining[start + row]
            code = torch.round(current / scale).clamp(-half, half - 1)
            codes[start + row] = code + half
            errors[row] = (current - code * scale) / local[row, row]
            remaining[start + row : block.stop] -= torch.outer(local[row, row:], errors[row])
        remaining[block.stop :] -= factor[block, block.stop :].T @ errors
    packed = codes.to(torch.uint8).T.reshape(outputs, -1, size).numpy()
    return BlockMatrix.from_codes(storage.bits, packed, scales.T.contiguous().numpy())


def _inverse_factor(hessian: torch.Tensor) -> torch.Tensor:
    """Return the upper Cholesky factor of the Hessian's inverse, float32 [in, in].

    Row i of the factor has the coefficients that distribute the rounding error of input i over the
    inputs after it. The Hessian is damped, and factored in float64.
    """
    damped = hessian.double()
    diagonal = damped.diagonal()
    # The weights of an input that is always zero are arbitrary.
    diagonal[diagonal == 0] = 1
    diagonal += _DAMPING * diagonal.mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True).float()


def _best_scale(block: torch.Tensor, half: int) -> torch.Tensor:
    """Return the scale of least squared error for every column.

    Candidates shrink the full range step by step. Shrinking clips the largest weight, but rounds
    the others more finely.

    Args:
        block: float32 [block_size, out].
        half: Number of negative codes, 2^(bits - 1).

    Returns:
        float32 [out]. A scale is negative if the largest weight of its column is positive.
    """
    largest = block.gather(0, block.abs().argmax(0, keepdim=True))[0]
    # The negative half of the range has one code more; the sign of the scale gives it to the
    # largest weight.
    full = torch.where(largest == 0, 1.0, largest / -half)
    best, least_error = full, torch.full_like(full, torch.inf)
    for shrinkage in _SHRINKAGES:
        scale = full * shrinkage
        rounded = torch.round(block / scale).clamp(-half, half - 1) * scale
        error = (rounded - block).square().sum(0)
        better = error < least_error
        best = torch.where(better, scale, best)
        least_error = torch.where(better, error, least_error)
    return best
