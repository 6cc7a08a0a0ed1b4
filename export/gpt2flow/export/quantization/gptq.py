"""GPTQ: rounds a weight so that the error of its product, not of itself, is small.

Columns of the input are rounded one after the other, and what each loses is made up for by those
that are still to come, as far as the inputs of a text let them (Frantar et al., 2022,
arXiv:2210.17323). onnxruntime has a GPTQ too, but returns no scales: found again by rounding its
outcome, they cost more than it gains (docs/quantization.md has the figures).
"""

from typing import Final

import torch

from gpt2flow.export.quantization.rounding import BlockMatrix
from gpt2flow.export.recipe import Storage

# Added to the diagonal, as a share of its mean, so that directions without inputs do no harm.
_DAMPING: Final = 0.01
# Shrinking the range of a block clips its largest weight and makes the steps of the others finer.
_SHRINKAGES: Final = tuple(1 - step / 50 for step in range(26))


def gptq(weight: torch.Tensor, hessian: torch.Tensor, storage: Storage) -> BlockMatrix:
    """Quantize a matrix, symmetrically in each block.

    Args:
        weight: float32 [in, out]; `in` must be divisible by the block size.
        hessian: float32 [in, in], the sum of input · inputᵀ over the tokens of a text.
        storage: Its bits and the size of its blocks.

    Returns:
        The matrix in blocks.
    """
    inputs, outputs = weight.shape
    size = storage.block_size
    if not size or inputs % size:
        raise ValueError(f"{inputs} inputs do not divide into blocks of {size}")
    rest = weight.clone()
    half = 2 ** (storage.bits - 1)
    factor = _inverse_factor(hessian)
    codes = torch.empty(inputs, outputs)
    scales = torch.empty(inputs // size, outputs)
    for start in range(0, inputs, size):
        block = slice(start, start + size)
        scale = scales[start // size] = _scale(rest[block], half)
        errors = torch.empty(size, outputs)
        local = factor[block, block]
        for row in range(size):
            current = rest[start + row]
            code = torch.round(current / scale).clamp(-half, half - 1)
            codes[start + row] = code + half
            errors[row] = (current - code * scale) / local[row, row]
            rest[start + row : block.stop] -= torch.outer(local[row, row:], errors[row])
        rest[block.stop :] -= factor[block, block.stop :].T @ errors
    packed = codes.to(torch.uint8).T.reshape(outputs, -1, size).numpy()
    return BlockMatrix.of_codes(storage.bits, packed, scales.T.contiguous().numpy())


def _inverse_factor(hessian: torch.Tensor) -> torch.Tensor:
    """Return the upper Cholesky factor of the inverse, float32 [in, in]."""
    damped = hessian.double()
    diagonal = damped.diagonal()
    # An input that is always zero has no say; its weight may become what it likes.
    diagonal[diagonal == 0] = 1
    diagonal += _DAMPING * diagonal.mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True).float()


def _scale(block: torch.Tensor, half: int) -> torch.Tensor:
    """Return the scale of each column that rounds it with the least squared error."""
    largest = block.gather(0, block.abs().argmax(0, keepdim=True))[0]
    # The end of the range that has one number more is for the sign of the largest weight.
    full = torch.where(largest == 0, 1.0, largest / -half)
    best, least = full, torch.full_like(full, torch.inf)
    for shrinkage in _SHRINKAGES:
        scale = full * shrinkage
        rounded = torch.round(block / scale).clamp(-half, half - 1) * scale
        error = (rounded - block).square().sum(0)
        better = error < least
        best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best
