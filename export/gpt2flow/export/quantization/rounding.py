"""Quantized matrices, and rounding to nearest.

A weight is stored as an integer code of 4 or 8 bits. Groups of weights share a scale, so that a
weight is approximately (code - zero point) · scale. A group is a block of consecutive inputs of
one output.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnxruntime.capi._pybind_state import quantize_matmul_4bits, quantize_matmul_8bits

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.recipe import Storage

Codes = npt.NDArray[np.uint8]

_BLOCK_QUANTIZERS: Final[dict[int, Callable[..., Any]]] = {
    4: quantize_matmul_4bits,
    8: quantize_matmul_8bits,
}


@dataclass(frozen=True, slots=True)
class BlockMatrix:
    """Matrix of 4- or 8-bit codes with a scale per block.

    The layout is that of onnxruntime's `MatMulNBits`, which `GatherBlockQuantized` shares.

    Attributes:
        bits: Bits per code, 4 or 8.
        data: uint8 [out, blocks, bytes], the codes. Of two 4-bit codes in a byte, the first has
            the lower bits.
        scales: float32 [out, blocks]; (code - zero point) · scale is the weight.
        zero_points: uint8 [out, blocks], one per byte. None means the middle of the range,
            2^(bits - 1), for all blocks.
    """

    bits: int
    data: Codes
    scales: FloatArray
    zero_points: Codes | None = None

    @property
    def inputs(self) -> int:
        """Number of inputs, with the padding of the last block."""
        return int(self.data[0].size) * 8 // self.bits

    @classmethod
    def from_codes(
        cls, bits: int, codes: Codes, scales: FloatArray, zero_points: Codes | None = None
    ) -> "BlockMatrix":
        """Return the matrix of the given codes, packed.

        Args:
            bits: Bits per code, 4 or 8.
            codes: uint8 [out, blocks, block_size].
            scales: float32 [out, blocks].
            zero_points: uint8 [out, blocks]; None means the middle of the range.
        """
        return cls(bits, codes if bits == 8 else pack(codes), scales, zero_points)

    def dequantize(self) -> FloatArray:
        """Return the weights that the codes represent, float32 [in, out]."""
        codes = self.data if self.bits == 8 else unpack(self.data)
        zeros: Any = 2 ** (self.bits - 1)
        if self.zero_points is not None:
            zeros = self.zero_points[:, :, None].astype(np.float32)
        blocks = (codes.astype(np.float32) - zeros) * self.scales[:, :, None]
        return np.ascontiguousarray(blocks.reshape(len(blocks), -1).T)


Quantizer = Callable[[str, FloatArray, Storage], BlockMatrix]
"""Function that quantizes a matrix in blocks.

Its arguments are the name of the matrix, its weights as float32 [in, out], and a storage format.
"""


def round_to_nearest(_name: str, weight: FloatArray, storage: Storage) -> BlockMatrix:
    """Quantize a matrix in blocks, rounding each weight to the nearest code.

    Quantization is symmetric. The weight of largest magnitude in a block determines its scale.

    Args:
        weight: float32 [in, out]; the last block is padded with zeros.
        storage: Storage format, of 4 or 8 bits and with a block size.
    """
    bits, block_size = storage.bits, storage.block_size
    assert block_size
    source = np.pad(weight, [(0, -len(weight) % block_size), (0, 0)])
    inputs, outputs = source.shape
    blocks = inputs // block_size
    data = np.zeros((outputs, blocks, block_size * bits // 8), np.uint8)
    scales = np.zeros((outputs, blocks), np.float32)
    zero_points = np.zeros((outputs, blocks), np.uint8)  # Left unused by symmetric rounding.
    source = np.ascontiguousarray(source)
    _BLOCK_QUANTIZERS[bits](data, source, scales, zero_points, block_size, outputs, inputs, True)  # noqa: FBT003 - positional in C++
    return BlockMatrix(bits, data, scales)


def pack(codes: Codes) -> Codes:
    """Pack pairs of 4-bit codes along the last axis into bytes.

    The first of a pair has the lower bits. An odd code at the end has a byte of its own.
    """
    even = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, codes.shape[-1] % 2)])
    packed: Codes = (even[..., ::2] | (even[..., 1::2] << 4)).astype(np.uint8)
    return packed


def unpack(data: Codes) -> Codes:
    """Return the 4-bit codes in bytes; the last axis doubles in length."""
    codes: Codes = np.stack([data & 15, data >> 4], axis=-1).astype(np.uint8)
    return codes.reshape(*data.shape[:-1], -1)
