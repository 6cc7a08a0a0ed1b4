"""HQQ: rounds weights with zero points that suit most of them rather than the largest.

The optimisation (Badri and Shaji, 2023, "Half-Quadratic Quantization") is onnxruntime's.
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


def half_quadratic(_name: str, weight: FloatArray, storage: Storage) -> BlockMatrix:
    """Quantize a matrix, float32 [in, out], with a zero point for each block."""
    size, levels = storage.block_size, 2**storage.bits
    if not size or len(weight) % size:
        raise ValueError(f"{len(weight)} inputs do not divide into blocks of {size}")
    quantizer = HQQWeightOnlyQuantizer(HQQWeightOnlyQuantConfig(size, storage.bits))
    rows = torch.from_numpy(np.ascontiguousarray(weight.T))
    _, scales, zeros = quantizer.quantize_internal(rows, bits=storage.bits, group_size=size)
    blocks = rows.reshape(len(rows), -1, size)
    # Kernels with 8-bit activations take whole zero points only, so weights are rounded again.
    zeros = zeros.round()
    scales, zeros = _with_zero_in_range(blocks, scales, zeros, levels)
    codes = (torch.round(blocks / scales[..., None]) + zeros[..., None]).clamp(0, levels - 1)
    return BlockMatrix.of_codes(
        storage.bits,
        codes.to(torch.uint8).numpy(),
        scales.numpy(),
        zeros.to(torch.uint8).numpy(),
    )


def _with_zero_in_range(
    blocks: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, levels: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace scales and zero points of blocks that are so far off zero that none has a number."""
    low = blocks.amin(-1).clamp(max=0)
    high = blocks.amax(-1).clamp(min=0)
    wider = (high - low).clamp(min=torch.finfo(torch.float32).tiny) / (levels - 1)
    fits = (zeros >= 0) & (zeros < levels)
    return torch.where(fits, scales, wider), torch.where(fits, zeros, (-low / wider).round())
