"""Quantized matrices in the layout of the operators of products.

`native/src/matmul.h` describes the layout: panels of columns, in blocks along the inputs, in steps
of the codes that one instruction takes.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.quantization.rounding import BlockMatrix, Codes, pack, unpack

PANEL: Final = 48
"""Number of columns of a panel."""


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """Matrix of 4- or 8-bit codes in panels.

    Attributes:
        bits: Bits per code, 4 or 8.
        outputs: Number of columns, without the padding of the last panel.
        block_size: Number of inputs that share a scale.
        weights: uint8 [panels, blocks, steps, 48, 4], the codes.
        scales: float32 [panels, blocks, 48].
        zero_points: uint8 [panels, blocks, 48]. None means the middle of the range.
    """

    bits: int
    outputs: int
    block_size: int
    weights: Codes
    scales: FloatArray
    zero_points: Codes | None = None


def pack_matrix(matrix: BlockMatrix) -> PackedMatrix:
    """Return a matrix with its codes in panels."""
    codes = matrix.data if matrix.bits == 8 else unpack(matrix.data)
    outputs, blocks, block_size = codes.shape
    halves = 8 // matrix.bits
    # The dimensions are panels, columns, blocks, steps, halves and codes.
    split = _in_panels(codes).reshape(-1, PANEL, blocks, block_size // 4 // halves, halves, 4)
    low = split[..., 0, :]
    combined = low if halves == 1 else low | (split[..., 1, :] << 4)
    zeros = matrix.zero_points
    return PackedMatrix(
        matrix.bits,
        outputs,
        block_size,
        np.ascontiguousarray(combined.transpose(0, 2, 3, 1, 4)),
        np.ascontiguousarray(_in_panels(matrix.scales).transpose(0, 2, 1)),
        None if zeros is None else np.ascontiguousarray(_in_panels(zeros).transpose(0, 2, 1)),
    )


def unpack_matrix(packed: PackedMatrix) -> BlockMatrix:
    """Return a matrix that `pack_matrix` packed."""
    halves = 8 // packed.bits
    panels, blocks, steps = packed.weights.shape[:3]
    combined = packed.weights.transpose(0, 3, 1, 2, 4)
    parts = [combined] if halves == 1 else [combined & 15, combined >> 4]
    codes = np.stack(parts, axis=-2).reshape(panels * PANEL, blocks, steps * halves * 4)
    zeros = packed.zero_points
    return BlockMatrix(
        packed.bits,
        (codes if packed.bits == 8 else pack(codes))[: packed.outputs],
        _in_columns(packed.scales)[: packed.outputs],
        None if zeros is None else _in_columns(zeros)[: packed.outputs],
    )


def _in_columns(panels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array [panels, blocks, 48] as [columns, blocks]."""
    return panels.transpose(0, 2, 1).reshape(-1, panels.shape[1])


def _in_panels(columns: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array [columns, …] as [panels, 48, …], padded with zeros."""
    padding = [(0, -len(columns) % PANEL)] + [(0, 0)] * (columns.ndim - 1)
    return np.pad(columns, padding).reshape(-1, PANEL, *columns.shape[1:])
