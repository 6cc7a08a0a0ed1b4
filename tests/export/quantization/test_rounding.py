"""Codes represent the weights that they were rounded from, for operators too."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.errors import InputError
from gpt2flow.export.quantization.hqq import quantize_hqq
from gpt2flow.export.quantization.rounding import (
    BlockMatrix,
    pack,
    round_to_nearest,
    unpack,
)
from gpt2flow.export.recipe import (
    RECIPES,
    KvCache,
    Method,
    Profile,
    Storage,
    fit_storage,
)

INT8, INT4 = RECIPES[Profile.INT8], RECIPES[Profile.INT4]


def some_weight(inputs: int = 256, outputs: int = 37) -> FloatArray:
    return np.random.default_rng(0).normal(size=(inputs, outputs)).astype(np.float32)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block_size", [16, 32, 64, 128])
def test_a_weight_is_at_most_half_a_step_off(bits: int, block_size: int) -> None:
    weight = some_weight()
    quantized = round_to_nearest("", weight, Storage(bits, block_size))
    blocks = weight.T.reshape(37, -1, block_size)
    step = np.abs(quantized.scales)
    # The largest weight of a block maps to one end of the range, which determines the step.
    np.testing.assert_allclose(step, np.abs(blocks).max(-1) / 2 ** (bits - 1), rtol=1e-5)
    error = np.abs(quantized.dequantize() - weight).T.reshape(blocks.shape)
    # The other end is one step short, for an equally large weight of the opposite sign.
    assert (error <= step[..., np.newaxis] * 1.001).all()
    assert (error <= step[..., np.newaxis] * 0.501).mean() > 0.97


def test_a_last_block_is_padded_with_zeros() -> None:
    weight = some_weight(50, 7)
    padded = round_to_nearest("", weight, Storage(8, 16))
    assert padded.inputs == 64
    assert np.abs(padded.dequantize()[:50] - weight).max() < 0.02
    assert not padded.dequantize()[50:].any()


@pytest.mark.parametrize("method", [round_to_nearest, quantize_hqq])
def test_zero_blocks_stay_zero(method: Any) -> None:
    zeros = np.zeros((32, 3), np.float32)
    assert not method("", zeros, Storage(4, 16)).dequantize().any()


def test_a_width_that_blocks_do_not_divide_is_refused_where_blocks_are_optimized() -> None:
    with pytest.raises(ValueError, match="40 inputs do not divide into blocks of 16"):
        quantize_hqq("", np.zeros((40, 3), np.float32), Storage(4, 16))


@pytest.mark.parametrize(
    "storage, method",
    [
        (Storage(8, 32), round_to_nearest),
        (Storage(4, 16), round_to_nearest),
        (Storage(4, 128), round_to_nearest),
        (Storage(4, 64), quantize_hqq),
        # Three blocks, so that zero points do not fill whole bytes.
        (Storage(4, 32), quantize_hqq),
    ],
)
def test_the_operator_agrees_with_dequantize(storage: Storage, method: Any) -> None:
    inputs = 96 if storage.block_size == 32 else 256
    blocks: BlockMatrix = method("", some_weight(inputs, 5), storage)
    identity = np.eye(inputs, dtype=np.float32)
    np.testing.assert_allclose(_product(identity, blocks, storage), blocks.dequantize(), atol=1e-5)


def test_zero_points_reduce_the_error_of_one_signed_weights() -> None:
    """Symmetric codes waste half of their range on weights of one sign."""
    weight = np.abs(some_weight()) + 3
    storage = Storage(4, 32)
    errors = [
        np.abs(method("", weight, storage).dequantize() - weight).mean()
        for method in (round_to_nearest, quantize_hqq)
    ]
    assert errors[1] < errors[0] / 1.5


def test_unpack_inverts_pack() -> None:
    codes = np.random.default_rng(0).integers(0, 16, (3, 2, 8)).astype(np.uint8)
    np.testing.assert_array_equal(unpack(pack(codes)), codes)
    np.testing.assert_array_equal(pack(np.array([[1, 2, 3]], np.uint8)), [[0x21, 0x03]])


@pytest.mark.parametrize(
    "inputs, expected",
    [
        (256, Storage(4, 128)),
        (1600, Storage(4, 64)),
        (96, Storage(4, 32)),
        (48, Storage(4, 16)),
        (50, Storage(8, 16)),
        (1, Storage(8, 16)),
    ],
)
def test_the_longest_block_that_divides_a_width_is_selected(inputs: int, expected: Storage) -> None:
    assert fit_storage(Storage(4, 128), inputs) == expected
    assert fit_storage(Storage(32), inputs) == Storage(32)


def test_an_unknown_choice_is_refused_with_the_allowed_ones() -> None:
    assert Profile.parse("int4") is Profile.INT4
    with pytest.raises(InputError, match=r"unknown profile 'int3'.*reference, fp32, int8, int4"):
        Profile.parse("int3")
    with pytest.raises(InputError, match=r"unknown KV cache 'fp16'.*fp32, int8"):
        KvCache.parse("fp16")
    with pytest.raises(InputError, match=r"unknown method 'awq'.*rtn, hqq, gptq"):
        Method.parse("awq")


def test_a_recipe_accepts_only_the_options_of_its_profile() -> None:
    changed = INT4.with_overrides(
        kv_cache=KvCache.FP32, method=Method.HQQ, block_size=32, mixed_precision_budget=0.5
    )
    assert (changed.kv_cache, changed.method, changed.mixed_precision_budget) == (
        "fp32",
        "hqq",
        0.5,
    )
    assert changed.body == changed.head == Storage(4, 32)
    assert changed.embeddings == INT4.embeddings
    assert INT4.with_overrides() == INT4
    with pytest.raises(InputError, match="block size 20: choose one of 128, 64, 32, 16"):
        INT4.with_overrides(block_size=20)
    with pytest.raises(InputError, match="block size 32: the profile quantizes no weights"):
        RECIPES[Profile.FP32].with_overrides(block_size=32)
    with pytest.raises(
        InputError, match=r"kept share 1\.5 is out of range; choose one from 0 to 1"
    ):
        INT4.with_overrides(mixed_precision_budget=1.5)
    with pytest.raises(InputError, match="apply to the int4 profile only"):
        INT8.with_overrides(method=Method.GPTQ)


def _product(hidden: FloatArray, blocks: BlockMatrix, storage: Storage) -> FloatArray:
    """Return hidden · matrix as `MatMulNBits` computes it with fp32 activations."""
    inputs, outputs = hidden.shape[1], len(blocks.data)
    constants = {"data": blocks.data, "scales": blocks.scales}
    if blocks.zero_points is not None:
        constants["zeros"] = pack(blocks.zero_points)
    node = helper.make_node(
        "MatMulNBits",
        ["hidden", *constants],
        ["output"],
        domain="com.microsoft",
        K=inputs,
        N=outputs,
        bits=storage.bits,
        block_size=storage.block_size,
        accuracy_level=1,
    )
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("hidden", onnx.TensorProto.FLOAT, ["rows", inputs])],
        [helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, ["rows", outputs])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    product: FloatArray = session.run(None, {"hidden": hidden})[0]
    return product
