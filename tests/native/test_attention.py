"""Attention equals NumPy's, with the same bits in any batch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from tests.support.operators import KERNELS, open_node
from tests.support.served_graph import by_position

from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.graph.functions import attention_function

SCALE = 0.125
SLOTS, CAPACITY = 4, 544
# Heads, head size, and whether the cache is int8.
SHAPES = [(3, 64, True), (2, 16, True), (1, 48, True), (2, 256, True), (3, 64, False)]
SHAPES += [(2, 80, False)]
# One token far into a sequence, chunks over a span's end and from the start, and another sequence.
TOKENS = [(0, 300), *((2, at) for at in range(250, 263)), *((1, at) for at in range(5))]
TOKENS += [(3, at) for at in range(540, 544)]


@dataclass
class Case:
    """Inputs of a node."""

    heads: int
    size: int
    int8: bool

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.heads * self.size)
        shape = (SLOTS, self.heads, CAPACITY, self.size)
        scales = (rng.random((2, self.heads, self.size)) * 0.02 + 0.005).astype(np.float32)
        self.scales = scales if self.int8 else np.ones_like(scales)
        self.keys, self.values = (
            rng.integers(-127, 128, shape).astype(np.int8)
            if self.int8
            else rng.standard_normal(shape).astype(np.float32)
            for _ in range(2)
        )
        self.slots, self.positions = (np.array(part) for part in zip(*TOKENS, strict=True))
        width = 3 * self.heads * self.size
        self.qkv = rng.standard_normal((len(TOKENS), width)).astype(np.float32)

    def open(self, kernels: str, threads: int = 2) -> Any:
        types = onnx.TensorProto
        cached = types.INT8 if self.int8 else types.FLOAT
        channels = 2 if self.int8 else 1
        keys: list[str | int] = ["slots", self.heads, "blocks", self.size // channels, 16, channels]
        values: list[str | int] = ["slots", self.heads, "capacity", self.size]
        return open_node(
            attention_function(int8_cache=self.int8),
            {
                "qkv": (types.FLOAT, ["tokens", 3 * self.heads * self.size]),
                "slots": (types.INT64, ["tokens"]),
                "positions": (types.INT64, ["tokens"]),
                "keys": (cached, keys),
                "values": (cached, values),
            },
            {"key_scales": self.scales[0], "value_scales": self.scales[1]} if self.int8 else {},
            {
                "out": (types.FLOAT, ["tokens", self.heads * self.size]),
                "present_keys": (cached, keys),
                "present_values": (cached, values),
            },
            kernels,
            threads=threads,
            num_heads=self.heads,
            scale=SCALE,
        )

    def feed(self, tokens: Any = slice(None), **changed: Any) -> dict[str, Any]:
        """Return the inputs for some of the tokens."""
        inputs = {
            "qkv": self.qkv[tokens],
            "slots": self.slots[tokens],
            "positions": self.positions[tokens],
            "keys": self.in_blocks(self.keys),
            "values": self.values,
        }
        return inputs | changed

    def in_blocks(self, keys: Any) -> Any:
        """Return keys [slots, heads, capacity, size] in the layout of the operator."""
        channels = 2 if self.int8 else 1
        split = keys.reshape(SLOTS, self.heads, -1, 16, self.size // channels, channels)
        return np.ascontiguousarray(split.swapaxes(3, 4))

    def expected(self) -> tuple[FloatArray, Any, Any]:
        """Return the output, keys and values as NumPy computes them."""
        keys, values = self.keys.copy(), self.values.copy()
        parts = self.qkv.reshape(-1, 3, self.heads, self.size)
        places: list[tuple[int, int]] = TOKENS
        for (slot, at), (_, key, value) in zip(places, parts, strict=True):
            for cached, new, scales in zip((keys, values), (key, value), self.scales, strict=True):
                codes = np.clip(np.rint(new / scales), -128, 127) if self.int8 else new
                cached[slot, :, at] = codes
        out = np.zeros((len(TOKENS), self.heads, self.size))
        for token, ((slot, at), (query, _, _)) in enumerate(zip(places, parts, strict=True)):
            for head in range(self.heads):
                key, value = (
                    cached[slot, head, : at + 1] * scales[head].astype(np.float64)
                    for cached, scales in zip((keys, values), self.scales, strict=True)
                )
                scores = key @ query[head] * SCALE
                weights = np.exp(scores - scores.max())
                out[token, head] = weights / weights.sum() @ value
        return out.reshape(len(TOKENS), -1).astype(np.float32), keys, values


@pytest.fixture(params=SHAPES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(*request.param)


@pytest.mark.parametrize("kernels", KERNELS)
def test_the_output_and_the_cache_equal_numpys(case: Case, kernels: str) -> None:
    expected, keys, values = case.expected()
    out, present_keys, present_values = case.open(kernels).run(None, case.feed())
    # Queries are rounded to 16 bits for an int8 cache.
    tolerance = 1e-4 if case.int8 else 2e-6
    np.testing.assert_allclose(out, expected, atol=tolerance * np.abs(expected).max(), rtol=0)
    np.testing.assert_array_equal(by_position(present_keys), keys)
    np.testing.assert_array_equal(present_values, values)


@pytest.mark.parametrize("kernels", KERNELS[:-1])
def test_a_token_has_the_same_bits_in_any_batch(case: Case, kernels: str) -> None:
    """Alone, in chunks, among other sequences, and with any number of threads."""
    session, single = case.open(kernels), case.open(kernels, threads=1)
    out, *_ = session.run(None, case.feed())
    assert np.array_equal(single.run(None, case.feed())[0], out)
    chunks: list[TokenArray] = np.split(np.arange(len(TOKENS)), [1, 8, 14, 19, 20])
    alone = [np.array([token]) for token in range(len(TOKENS))]
    for parts in (chunks, alone):
        keys, values = case.in_blocks(case.keys), case.values
        for part in parts:
            feed = case.feed(part, keys=keys, values=values)
            some, keys, values = session.run(None, feed)
            assert np.array_equal(some, out[part])


@pytest.mark.parametrize("kernels", KERNELS[:-1])
@pytest.mark.parametrize("name", ["slots", "positions"])
@pytest.mark.parametrize("bad", [-1, CAPACITY, 2**40])
def test_a_place_outside_the_cache_is_an_error(kernels: str, name: str, bad: int) -> None:
    case = Case(3, 64, int8=True)
    feed = case.feed()
    feed[name] = feed[name].copy()
    feed[name][-1] = bad
    with pytest.raises(Exception, match=f"a {name[:-1]} is outside the cache"):
        case.open(kernels).run(None, feed)
