"""Weights as numbers of a few bits, each group of them with a scale."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnxruntime.capi._pybind_state import quantize_matmul_4bits, quantize_matmul_8bits

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.recipe import Storage

Codes = npt.NDArray[np.uint8]

_ROUND: Final[dict[int, Callable[..., Any]]] = {4: quantize_matmul_4bits, 8: quantize_matmul_8bits}
_LARGEST_INT8: Final = 127


@dataclass(frozen=True, slots=True)
class BlockMatrix:
    """A matrix of 4- or 8-bit numbers in blocks along its input, each with a scale.

    The layout is that of onnxruntime's `MatMulNBits`, which `GatherBlockQuantized` shares.

    Attributes:
        bits: Of one number.
        data: uint8 [out, blocks, bytes]; of two 4-bit numbers, the first has the lower bits.
        scales: float32 [out, blocks]; (number − zero point) · scale is the weight.
        zero_points: uint8 [out, blocks]; None where each is the middle of the range.
    """

    bits: int
    data: Codes
    scales: FloatArray
    zero_points: Codes | None = None

    @classmethod
    def of_codes(
        cls, bits: int, codes: Codes, scales: FloatArray, zero_points: Codes | None = None
    ) -> "BlockMatrix":
        """Pack numbers, uint8 [out, blocks, block_size]."""
        return cls(bits, codes if bits == 8 else pack(codes), scales, zero_points)

    def dequantize(self) -> FloatArray:
        """Return the weights that the numbers stand for, float32 [in, out]."""
        codes = self.data if self.bits == 8 else unpack(self.data)
        zeros: Any = 2 ** (self.bits - 1)
        if self.zero_points is not None:
            zeros = self.zero_points[:, :, None].astype(np.float32)
        blocks = (codes.astype(np.float32) - zeros) * self.scales[:, :, None]
        return np.ascontiguousarray(blocks.reshape(len(blocks), -1).T)


@dataclass(frozen=True, slots=True)
class ColumnMatrix:
    """A matrix of 8-bit numbers with a scale for each output.

    Attributes:
        data: int8 [in, out]; number · scale is the weight.
        scales: float32 [out].
    """

    data: npt.NDArray[np.int8]
    scales: FloatArray

    def dequantize(self) -> FloatArray:
        """Return the weights that the numbers stand for, float32 [in, out]."""
        weights: FloatArray = self.data.astype(np.float32) * self.scales
        return weights


Quantizer = Callable[[str, FloatArray, Storage], BlockMatrix]
"""Told the name of a matrix, float32 [in, out], and how to store it, returns it in blocks."""


def round_to_nearest(_name: str, weight: FloatArray, storage: Storage) -> BlockMatrix:
    """Round a matrix to the nearest numbers, symmetrically in each block.

    Args:
        weight: float32 [in, out]; `in` must be divisible by the block size.
        storage: Its bits, 4 or 8, and the size of its blocks.
    """
    inputs, outputs = weight.shape
    bits, block_size = storage.bits, storage.block_size
    if not block_size or inputs % block_size:
        raise ValueError(f"{inputs} inputs do not divide into blocks of {block_size}")
    blocks = inputs // block_size
    data = np.zeros((outputs, blocks, block_size * bits // 8), np.uint8)
    scales = np.zeros((outputs, blocks), np.float32)
    unused = np.zeros((outputs, blocks), np.uint8)
    source = np.ascontiguousarray(weight)
    _ROUND[bits](data, source, scales, unused, block_size, outputs, inputs, True)  # noqa: FBT003 - positional in C++
    return BlockMatrix(bits, data, scales)


def quantize_columns(weight: FloatArray) -> ColumnMatrix:
    """Round a matrix, float32 [in, out], to the nearest 8-bit numbers for each output."""
    # A column of zeros takes any scale.
    largest = np.abs(weight).max(axis=0)
    scales = np.where(largest > 0, largest / _LARGEST_INT8, 1).astype(np.float32)
    return ColumnMatrix(np.rint(weight / scales).astype(np.int8), scales)


def pack(codes: Codes) -> Codes:
    """Pack 4-bit numbers by twos along the last axis; the first has the lower bits.

    An odd one at the end stands alone in its byte.
    """
    even = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, codes.shape[-1] % 2)])
    packed: Codes = (even[..., ::2] | (even[..., 1::2] << 4)).astype(np.uint8)
    return packed


def unpack(data: Codes) -> Codes:
    """Return the 4-bit numbers of bytes, twice as many along the last axis."""
    codes: Codes = np.stack([data & 15, data >> 4], axis=-1).astype(np.uint8)
    return codes.reshape(*data.shape[:-1], -1)
