"""HQQ: quantization with zero points that fit most weights of a block.

Half-quadratic optimization gives up the accuracy of outliers for that of the other weights (Badri
and Shaji, 2023, "Half-Quadratic Quantization"). The implementation is onnxruntime's.
"""

import numpy as np
import torch
from onnxruntime.quantization.matmul_nbits_quantizer import (
    HQQWeightOnlyQuantConfig,
    HQQWeightOnlyQuantizer,
)

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.quantization.rounding import BlockMatrix
from gpt2flow.export.recipe import Storage


def quantize_hqq(_name: str, weight: FloatArray, storage: Storage) -> BlockMatrix:
    """Quantize a matrix, with one zero point per block.

    Args:
        weight: float32 [in, out]; the block size must divide `in`.
        storage: Storage format, with a block size.

    Raises:
        ValueError: The block size does not divide the inputs.
    """
    size, levels = storage.block_size, 2**storage.bits
    if not size or len(weight) % size:
        raise ValueError(f"{len(weight)} inputs do not divide into blocks of {size}")
    quantizer = HQQWeightOnlyQuantizer(HQQWeightOnlyQuantConfig(size, storage.bits))
    rows = torch.from_numpy(np.ascontiguousarray(weight.T))
    _, scales, zeros = quantizer.quantize_internal(rows, bits=storage.bits, group_size=size)
    blocks = rows.reshape(len(rows), -1, size)
    # Kernels with 8-bit activations require integer zero points, so weights are rounded again.
    zeros = zeros.round()
    scales, zeros = _with_representable_zeros(blocks, scales, zeros, levels)
    codes = (torch.round(blocks / scales[..., None]) + zeros[..., None]).clamp(0, levels - 1)
    return BlockMatrix.from_codes(
        storage.bits,
        codes.to(torch.uint8).numpy(),
        scales.numpy(),
        zeros.to(torch.uint8).numpy(),
    )


def _with_representable_zeros(
    blocks: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, levels: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace the quantization of blocks whose zero point is out of range.

    This happens to blocks far from zero. Their range is extended to include it.

    Args:
        blocks: float32 [out, blocks, block_size], the weights.
        scales: float32 [out, blocks].
        zeros: float32 [out, blocks], whole zero points.
        levels: Number of codes.

    Returns:
        Scales and zero points, float32 [out, blocks] each.
    """
    low = blocks.amin(-1).clamp(max=0)
    high = blocks.amax(-1).clamp(min=0)
    full_range = (high - low).clamp(min=torch.finfo(torch.float32).tiny) / (levels - 1)
    fits = (zeros >= 0) & (zeros < levels)
    return torch.where(fits, scales, full_range), torch.where(
        fits, zeros, (-low / full_range).round()
    )
