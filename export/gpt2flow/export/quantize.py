"""Weights in blocks of a few bits, in the layout of onnxruntime's `MatMulNBits`."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from onnxruntime.capi._pybind_state import quantize_matmul_8bits

from gpt2flow.export.arrays import FloatArray

# What `MatMulNBits` and `GatherBlockQuantized` subtract when they are given no zero points.
ZERO_POINT: Final = 128


@dataclass(frozen=True, slots=True)
class QuantizedMatrix:
    """A matrix of 8-bit numbers in blocks along its input, each with a scale.

    Attributes:
        data: uint8 [out, blocks, block_size]; (data − 128) · scale is the weight.
        scales: float32 [out, blocks].
    """

    data: npt.NDArray[np.uint8]
    scales: FloatArray

    def dequantize(self) -> FloatArray:
        """Returns the weights that the numbers stand for, float32 [in, out]."""
        blocks = (self.data.astype(np.float32) - ZERO_POINT) * self.scales[:, :, None]
        return np.ascontiguousarray(blocks.reshape(len(blocks), -1).T)


def quantize(weight: FloatArray, block_size: int) -> QuantizedMatrix:
    """Rounds a matrix to the nearest 8-bit numbers, symmetrically in each block.

    Args:
        weight: float32 [in, out]; `in` must be divisible by the block size.
        block_size: How many inputs share a scale.

    Returns:
        The matrix in blocks.
    """
    inputs, outputs = weight.shape
    if inputs % block_size:
        raise ValueError(f"{inputs} inputs do not divide into blocks of {block_size}")
    blocks = inputs // block_size
    data = np.zeros((outputs, blocks, block_size), np.uint8)
    scales = np.zeros((outputs, blocks), np.float32)
    zero_points = np.zeros((outputs, blocks), np.uint8)
    source = np.ascontiguousarray(weight)
    quantize_matmul_8bits(data, source, scales, zero_points, block_size, outputs, inputs, True)  # noqa: FBT003 - positional in C++
    return QuantizedMatrix(data, scales)
