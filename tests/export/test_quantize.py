"""Weights in 8-bit blocks stand for what they were, and the graph reads them as they are meant."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from gpt2flow.export.architecture import Architecture
from gpt2flow.export.errors import InputError
from gpt2flow.export.quantize import quantize
from gpt2flow.export.recipe import RECIPES, Profile, Storage
from gpt2flow.export.served_model import ServedModel
from gpt2flow.export.serving_graph import write_serving_graph

INT8 = RECIPES[Profile.INT8]
TOKENS = np.random.default_rng(3).integers(0, 113, 30)


@pytest.mark.parametrize("block_size", [16, 32, 64, 128])
def test_a_weight_is_at_most_half_a_step_off(block_size: int) -> None:
    weight = np.random.default_rng(0).normal(size=(256, 37)).astype(np.float32)
    quantized = quantize(weight, block_size)
    blocks = weight.T.reshape(37, -1, block_size)
    step = np.abs(quantized.scales)
    # The largest weight of a block lies at one end of 8 bits, so its step is known.
    np.testing.assert_allclose(step, np.abs(blocks).max(-1) / 128, rtol=1e-5)
    error = np.abs(quantized.dequantize() - weight).T.reshape(blocks.shape)
    # The other end is one step short: a weight as large as the largest, of the other sign.
    assert (error <= step[..., np.newaxis] * 1.001).all()
    assert (error <= step[..., np.newaxis] * 0.501).mean() > 0.99


def test_zero_blocks_stay_zero() -> None:
    assert not quantize(np.zeros((32, 3), np.float32), 16).dequantize().any()


def test_a_width_that_blocks_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="40 inputs do not divide into blocks of 16"):
        quantize(np.zeros((40, 3), np.float32), 16)


@pytest.mark.parametrize(
    "inputs, block_size", [(256, 128), (192, 64), (96, 32), (48, 16), (50, None), (1, None)]
)
def test_the_longest_block_that_divides_a_width_is_taken(
    inputs: int, block_size: int | None
) -> None:
    expected = Storage(8, block_size) if block_size else Storage(32)
    assert INT8.storage(inputs) == expected
    assert RECIPES[Profile.FP32].storage(inputs) == Storage(32)


def test_an_unknown_profile_names_those_that_there_are() -> None:
    assert Profile.parse("int8") is Profile.INT8
    with pytest.raises(InputError, match=r"unknown profile 'int3'.*reference, fp32, int8"):
        Profile.parse("int3")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="blocks of 16"),
        pytest.param({"n_embd": 128, "n_head": 2}, id="blocks of 128"),
        pytest.param({"tie_word_embeddings": False, "n_inner": 70}, id="untied, one matrix fp32"),
        pytest.param({"n_embd": 50, "n_head": 5}, id="padded heads"),
    ],
)
def test_the_graph_computes_with_the_weights_that_the_blocks_stand_for(
    make_model: Any, serve: Any, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """With activations left alone, nothing differs from fp32 but the rounding of weights."""
    model = make_model(**changes)
    architecture = Architecture.from_config(model.config.to_dict())
    path = tmp_path / "model.onnx"
    served = serve(model, Profile.INT8).prefill(0, TOKENS)
    _leave_activations_alone(path)
    exact = ServedModel(path, architecture, slots=1).prefill(0, TOKENS)
    _round_weights(model, architecture)
    expected = serve(model).prefill(0, TOKENS)
    np.testing.assert_allclose(exact, expected, atol=1e-4, rtol=0)
    # Activations in 8 bits cost about as much again as weights in 8 bits.
    assert 0 < np.abs(served - expected).max() < 0.1 * np.ptp(expected)


def test_every_quantized_product_takes_activations_in_8_bits(
    make_model: Any, serve: Any, tmp_path: Path
) -> None:
    serve(make_model(), Profile.INT8)
    nodes = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.node
    products = [node for node in nodes if node.op_type == "MatMulNBits"]
    assert len(products) == 9
    for node in products:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert attributes["accuracy_level"] == 4
        assert attributes["bits"] == 8
    assert not [node for node in nodes if node.op_type in {"MatMul", "Gemm"}]


@pytest.mark.parametrize("profile", [Profile.FP32, Profile.INT8])
def test_a_tied_head_has_the_bytes_of_the_embedding(
    make_model: Any, serve: Any, tmp_path: Path, profile: Profile
) -> None:
    sizes = {}
    for tied in (True, False):
        serve(make_model(tie_word_embeddings=tied), profile)
        sizes[tied] = (tmp_path / "model.onnx.data").stat().st_size
    matrix = 113 * 48 * (4 if profile is Profile.FP32 else 1)
    assert sizes[False] - sizes[True] >= matrix


def test_storage_is_told_for_every_matrix(make_model: Any, tmp_path: Path) -> None:
    model = make_model(n_layer=1, n_inner=70)
    weights = {k.removeprefix("transformer."): v.numpy() for k, v in model.state_dict().items()}
    architecture = Architecture.from_config(model.config.to_dict())
    storage = write_serving_graph(tmp_path / "model.onnx", architecture, weights, INT8)
    blocks = Storage(8, 16)
    assert storage == {
        "wte": blocks,
        "wpe": blocks,
        "h.0.attn.c_attn": blocks,
        "h.0.attn.c_proj": blocks,
        "h.0.mlp.c_fc": blocks,
        "h.0.mlp.c_proj": Storage(32),
        "lm_head": blocks,
    }


def _leave_activations_alone(path: Path) -> None:
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 1
    path.write_bytes(model.SerializeToString())


def _round_weights(model: Any, architecture: Architecture) -> None:
    """Replaces every matrix that the profile quantizes by what its blocks stand for.

    Rows that only padding adds are zero, so the blocks of a padded matrix begin anew at each head.
    """
    padding = -architecture.head_size % 8
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            continue
        rows_are_outputs = name.split(".")[-2] in {"wte", "wpe", "lm_head"}
        matrix = parameter.detach().numpy()
        matrix = matrix.T if rows_are_outputs else matrix
        heads = architecture.heads if name.endswith("attn.c_proj.weight") and padding else 1
        split = matrix.reshape(heads, -1, matrix.shape[1])
        padded = np.pad(split, ((0, 0), (0, padding if heads > 1 else 0), (0, 0)))
        flat = padded.reshape(-1, matrix.shape[1])
        block_size = INT8.storage(len(flat)).block_size
        if block_size is None:
            continue
        rounded = quantize(flat, block_size).dequantize().reshape(padded.shape)
        rounded = rounded[:, : split.shape[1]].reshape(matrix.shape)
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(rounded.T if rows_are_outputs else rounded))
