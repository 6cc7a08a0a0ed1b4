"""Products equal NumPy's, with the same bits on every kernel."""

from typing import Any

import numpy as np
import onnx
import pytest
from tests.support.operators import KERNELS, open_node

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.graph.functions import Product, product_function
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
EPSILON = 1e-5


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


def normalized(rows: FloatArray, gain: FloatArray, shift: FloatArray) -> FloatArray:
    """Return the layer normalization of rows."""
    values = rows.astype(np.float64)
    centred = values - values.mean(-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
    result: FloatArray = (centred / deviation * gain + shift).astype(np.float32)
    return result


def gelu(values: Any) -> Any:
    """Return the activation function, by its approximation with tanh."""
    inner = np.sqrt(2 / np.pi) * (values + 0.044715 * values**3)
    return values * (1 + np.tanh(inner)) / 2


class Node:
    """A product with what surrounds it, on several kernels, and NumPy's result.

    Attributes:
        sessions: Session of each kernel.
    """

    def __init__(self, operator: Product, shape: Any, kernels: Any = KERNELS) -> None:
        bits, block_size, inputs, outputs, zeros = shape
        matrix = make_matrix(bits, block_size, inputs, outputs, zeros=zeros)
        packed = pack_matrix(matrix)
        rng = np.random.default_rng(1)
        self._operator, self._block_size = operator, block_size
        self._weight = matrix.dequantize().astype(np.float64)
        self._bias = rng.standard_normal(outputs).astype(np.float32)
        self._gain, self._shift = rng.standard_normal((2, inputs)).astype(np.float32)
        self._inputs, self._outputs = inputs, outputs
        self.sessions = {name: self._open(packed, name) for name in kernels}

    def feed(self, count: int, ids: Any = ()) -> Any:
        """Return inputs with a number of rows."""
        feeds: dict[str, Any] = {"x": make_rows(count, self._inputs)}
        if self._operator is Product.ADD:
            rng = np.random.default_rng(count)
            feeds["residual"] = rng.standard_normal((count, self._outputs)).astype(np.float32)
        if self._operator is Product.NORM_HEAD:
            feeds["ids"] = np.array(ids, np.int64)
        return feeds

    def expected(self, feeds: Any) -> Any:
        """Return the result in float64 of the rounded rows."""
        rows, has_norm = feeds["x"], self._operator is not Product.ADD
        rows = normalized(rows, self._gain, self._shift) if has_norm else rows
        product = quantized(rows, self._block_size) @ self._weight
        if self._operator is not Product.NORM_HEAD:
            product += self._bias
        if self._operator is Product.NORM_GELU:
            product = gelu(product)
        return product + feeds.get("residual", 0)

    def tolerance(self, expected: Any) -> Any:
        """Return the largest error of each row.

        After a norm, whose last bit differs, a code may be rounded to its neighbour.
        """
        share = 1e-5 if self._operator is Product.ADD else 2e-2
        return share * np.abs(expected).max(-1, keepdims=True) + 1e-6

    def _open(self, packed: PackedMatrix, kernels: str) -> Any:
        constants: dict[str, Any] = {"weights": packed.weights, "scales": packed.scales}
        types = onnx.TensorProto
        inputs: dict[str, Any] = {"x": (types.FLOAT, ["rows", self._inputs])}
        order = ["x", "weights", "scales"]
        attributes: dict[str, Any] = {}
        if self._operator is Product.NORM_HEAD:
            inputs["ids"] = (types.INT64, ["ids"])
            order.append("ids")
        else:
            constants["bias"] = self._bias
            order.append("bias")
        if self._operator is Product.ADD:
            inputs["residual"] = (types.FLOAT, ["rows", packed.outputs])
            order.append("residual")
        else:
            constants |= {"gain": self._gain, "shift": self._shift}
            order += ["gain", "shift"]
            attributes["epsilon"] = EPSILON
        if packed.zero_points is not None:
            constants["zeros"] = packed.zero_points
            order.append("zeros")
        has_zeros = packed.zero_points is not None
        return open_node(
            product_function(self._operator, packed.bits, zero_points=has_zeros),
            inputs,
            constants,
            {"y": (types.FLOAT, ["rows", "columns"])},
            kernels,
            order=order,
            K=self._inputs,
            N=packed.outputs,
            block_size=packed.block_size,
            **attributes,
        )


@pytest.mark.parametrize("operator", list(Product))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_equal_numpy_with_the_same_bits_on_every_kernel(
    operator: Product, shape: Any
) -> None:
    node = Node(operator, shape)
    for count in ROWS:
        feeds = node.feed(count)
        expected = node.expected(feeds)
        results = {name: session.run(None, feeds)[0] for name, session in node.sessions.items()}
        for result in results.values():
            assert (np.abs(result - expected) <= node.tolerance(expected)).all()
        first, *others = (results[name] for name in KERNELS if name != "onnxruntime")
        assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("operator", list(Product))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_row_has_the_same_bits_alone_and_among_others(operator: Product, shape: Any) -> None:
    node = Node(operator, shape, KERNELS[:-1])
    feeds = node.feed(33)
    for session in node.sessions.values():
        together = session.run(None, feeds)[0]
        for count in range(1, 10):
            some = slice(count, 2 * count)
            part = {name: each if name == "ids" else each[some] for name, each in feeds.items()}
            assert np.array_equal(session.run(None, part)[0], together[some])


@pytest.mark.parametrize("operator", [Product.NORM, Product.NORM_HEAD])
@pytest.mark.parametrize("width", [16, 41, 768, 2000])
def test_norms_equal_numpy(operator: Product, width: int) -> None:
    """Few codes round to a neighbour, so errors are small."""
    node = Node(operator, (8, 16, width, 48, False))
    feeds = node.feed(9)
    expected = node.expected(feeds)
    for session in node.sessions.values():
        error = np.abs(session.run(None, feeds)[0] - expected)
        assert error.mean() < 2e-3 * np.abs(expected).mean()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", KERNELS)
def test_restricted_logits_have_the_bits_of_all_logits(shape: Any, name: str) -> None:
    node, outputs = Node(Product.NORM_HEAD, shape, [name]), shape[3]
    everything = node.sessions[name].run(None, node.feed(5))[0]
    assert everything.shape == (5, outputs)
    ids = [3, outputs - 1, 7, 8, 9, 8, 0]
    restricted = node.sessions[name].run(None, node.feed(5, ids))[0]
    assert np.array_equal(restricted, everything[:, ids])


@pytest.mark.parametrize("name", KERNELS[:-1])
@pytest.mark.parametrize("bad", [-1, 200, 2**40])
def test_an_id_outside_the_vocabulary_is_an_error(name: str, bad: int) -> None:
    node = Node(Product.NORM_HEAD, (8, 128, 256, 200, False), [name])
    with pytest.raises(Exception, match="an id is outside the vocabulary"):
        node.sessions[name].run(None, node.feed(2, [1, bad]))
