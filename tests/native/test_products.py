"""Products equal NumPy's, with the same bits on every kernel."""

from typing import Any

import numpy as np
import onnx
import pytest
from tests.support.operators import KERNELS, open_node

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.graph.functions import head_function, product_function
from gpt2flow.export.graph.packed_matrix import PackedMatrix, pack_matrix
from gpt2flow.export.quantization.rounding import BlockMatrix, round_to_nearest
from gpt2flow.export.recipe import Storage

# Bits, block size, inputs, outputs, and whether there are zero points.
SHAPES = [
    (4, 128, 768, 200, False),
    (4, 64, 192, 48, True),
    (4, 32, 96, 97, False),
    (4, 16, 48, 50, True),
    (8, 128, 768, 200, False),
    (8, 64, 192, 47, False),
    (8, 16, 41, 50, False),
]
ROWS = (1, 2, 3, 5, 8, 9, 33)


def make_matrix(bits: int, block_size: int, inputs: int, outputs: int, *, zeros: bool) -> Any:
    rng = np.random.default_rng(bits * block_size + inputs)
    weight = rng.standard_normal((inputs, outputs)).astype(np.float32)
    matrix = round_to_nearest("", weight, Storage(bits, block_size))
    if not zeros:
        return matrix
    points = rng.integers(0, 16, matrix.scales.shape).astype(np.uint8)
    return BlockMatrix(matrix.bits, matrix.data, matrix.scales, points)


def make_rows(count: int, inputs: int) -> FloatArray:
    """Return rows of very different magnitudes, one of them zero."""
    rng = np.random.default_rng(count)
    rows = rng.standard_normal((count, inputs)) * 10.0 ** rng.integers(-6, 6, (count, 1))
    rows[count // 2] *= count > 2
    values: FloatArray = rows.astype(np.float32)
    return values


def quantized(rows: FloatArray, block_size: int) -> Any:
    """Return rows rounded to int8 in blocks."""
    count, inputs = rows.shape
    blocks = np.pad(rows, [(0, 0), (0, -inputs % block_size)]).reshape(count, -1, block_size)
    largest = np.abs(blocks).max(-1, keepdims=True)
    inverse = np.divide(np.float32(127), largest, where=largest > 0, out=np.zeros_like(largest))
    codes = np.rint(blocks * inverse).astype(np.float64)
    return (codes * (largest / 127)).reshape(count, -1)


def open_product(packed: PackedMatrix, inputs: int, bias: FloatArray, kernels: str) -> Any:
    constants: dict[str, Any] = {
        "weights": packed.weights,
        "scales": packed.scales,
        "bias": bias,
    }
    if packed.zero_points is not None:
        constants["zeros"] = packed.zero_points
    function = product_function(packed.bits, zero_points=packed.zero_points is not None)
    return open_node(
        function,
        {"x": (onnx.TensorProto.FLOAT, ["rows", inputs])},
        constants,
        {"y": (onnx.TensorProto.FLOAT, ["rows", packed.outputs])},
        kernels,
        K=inputs,
        N=packed.outputs,
        block_size=packed.block_size,
    )


def open_head(packed: PackedMatrix, inputs: int, kernels: str) -> Any:
    constants: dict[str, Any] = {"weights": packed.weights, "scales": packed.scales}
    if packed.zero_points is not None:
        constants["zeros"] = packed.zero_points
    function = head_function(packed.bits, zero_points=packed.zero_points is not None)
    types = onnx.TensorProto
    return open_node(
        function,
        {"x": (types.FLOAT, ["rows", inputs]), "ids": (types.INT64, ["ids"])},
        constants,
        {"y": (types.FLOAT, ["rows", "columns"])},
        kernels,
        order=["x", "weights", "scales", "ids", "zeros"][: 5 if "zeros" in constants else 4],
        K=inputs,
        N=packed.outputs,
        block_size=packed.block_size,
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_equal_numpy_with_the_same_bits_on_every_kernel(shape: Any) -> None:
    *sizes, zeros = shape
    matrix = make_matrix(*sizes, zeros=zeros)
    inputs, outputs = sizes[2:]
    bias = np.random.default_rng(1).standard_normal(outputs).astype(np.float32)
    sessions = {name: open_product(pack_matrix(matrix), inputs, bias, name) for name in KERNELS}
    weight = matrix.dequantize().astype(np.float64)
    for count in ROWS:
        rows = make_rows(count, inputs)
        expected = quantized(rows, sizes[1]) @ weight + bias
        tolerance = 1e-5 * np.abs(expected).max(-1, keepdims=True) + 1e-6
        results = {name: session.run(None, {"x": rows})[0] for name, session in sessions.items()}
        for result in results.values():
            assert (np.abs(result - expected) <= tolerance).all()
        first, *others = (results[name] for name in KERNELS if name != "onnxruntime")
        assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_row_has_the_same_bits_alone_and_among_others(shape: Any) -> None:
    *sizes, zeros = shape
    inputs, outputs = sizes[2:]
    packed = pack_matrix(make_matrix(*sizes, zeros=zeros))
    for name in KERNELS[:-1]:
        session = open_product(packed, inputs, np.zeros(outputs, np.float32), name)
        rows = make_rows(33, inputs)
        together = session.run(None, {"x": rows})[0]
        for count in range(1, 10):
            some = rows[count : 2 * count]
            assert np.array_equal(session.run(None, {"x": some})[0], together[count : 2 * count])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", KERNELS)
def test_restricted_logits_have_the_bits_of_all_logits(shape: Any, name: str) -> None:
    *sizes, zeros = shape
    inputs, outputs = sizes[2:]
    session = open_head(pack_matrix(make_matrix(*sizes, zeros=zeros)), inputs, name)
    rows = make_rows(5, inputs)
    everything = session.run(None, {"x": rows, "ids": np.empty(0, np.int64)})[0]
    assert everything.shape == (5, outputs)
    ids = np.array([3, outputs - 1, 7, 8, 9, 8, 0], np.int64)
    restricted = session.run(None, {"x": rows, "ids": ids})[0]
    assert np.array_equal(restricted, everything[:, ids])


@pytest.mark.parametrize("name", KERNELS[:-1])
@pytest.mark.parametrize("bad", [-1, 200, 2**40])
def test_an_id_outside_the_vocabulary_is_an_error(name: str, bad: int) -> None:
    session = open_head(pack_matrix(make_matrix(8, 128, 256, 200, zeros=False)), 256, name)
    with pytest.raises(Exception, match="an id is outside the vocabulary"):
        session.run(None, {"x": make_rows(2, 256), "ids": np.array([1, bad])})
