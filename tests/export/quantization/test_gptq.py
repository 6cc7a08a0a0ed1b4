"""GPTQ loses less than rounding, and mixed precision keeps what is sensitive."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt2flow.export.arrays import TokenArray
from gpt2flow.export.checkpoint.checkpoint import Checkpoint, read_checkpoint
from gpt2flow.export.quantization.gptq import quantize_gptq
from gpt2flow.export.quantization.layerwise import HEAD, LayerwiseModel, quantize_model_with_gptq
from gpt2flow.export.quantization.rounding import BlockMatrix, round_to_nearest
from gpt2flow.export.quantization.sensitivity import choose_mixed_precision, measure_sensitivity
from gpt2flow.export.recipe import Storage, fit_storage

STORAGE = Storage(4, 32)


def correlated_inputs(tokens: int, channels: int) -> torch.Tensor:
    """Return inputs like a trained model's, with correlated channels of different scales."""
    generator = torch.Generator().manual_seed(0)
    mixture = torch.randn(channels // 4, channels, generator=generator)
    hidden = torch.randn(tokens, channels // 4, generator=generator) @ mixture
    return hidden + 0.3 * torch.randn(tokens, channels, generator=generator)


@pytest.mark.parametrize("storage", [Storage(4, 32), Storage(4, 128), Storage(8, 64)])
def test_the_product_error_is_less_than_half_that_of_rounding(storage: Storage) -> None:
    weight = torch.randn(128, 40, generator=torch.Generator().manual_seed(1))
    seen, unseen = correlated_inputs(1000, 128).split([600, 400])
    blocks = quantize_gptq(weight, seen.T @ seen, storage)
    rounded = round_to_nearest("", weight.numpy(), storage)
    errors = [
        float((unseen @ (torch.from_numpy(matrix.dequantize()) - weight)).square().mean())
        for matrix in (blocks, rounded)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_representable_weights_are_preserved() -> None:
    codes = np.random.default_rng(0).integers(0, 16, (5, 4, 32)).astype(np.uint8)
    # Each block uses the end of the range, from which its scale is inferred.
    codes[..., 0] = 0
    scales = np.random.default_rng(1).uniform(0.1, 2, (5, 4)).astype(np.float32)
    matrix = BlockMatrix.from_codes(4, codes, scales)
    hidden = correlated_inputs(300, 128)
    again = quantize_gptq(torch.from_numpy(matrix.dequantize()), hidden.T @ hidden, STORAGE)
    np.testing.assert_allclose(again.dequantize(), matrix.dequantize(), atol=1e-4)


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    weight = torch.randn(64, 8)
    hidden = correlated_inputs(200, 64)
    hidden[:, 10:20] = 0
    blocks = quantize_gptq(weight, hidden.T @ hidden, STORAGE)
    error = hidden @ (torch.from_numpy(blocks.dequantize()) - weight)
    assert torch.isfinite(error).all()
    assert float(error.square().mean()) < 0.02 * float((hidden @ weight).square().mean())


def test_a_width_that_blocks_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="40 inputs do not divide into blocks of 32"):
        quantize_gptq(torch.zeros(40, 3), torch.eye(40), STORAGE)


@pytest.fixture(params=[{}, {"n_embd": 60, "n_head": 5, "n_inner": 64}], ids=["plain", "padded"])
def source(
    request: pytest.FixtureRequest, make_model: Any, save_checkpoint: Any, tmp_path: Path
) -> Checkpoint:
    model = make_model(n_layer=3, scale_attn_by_inverse_layer_idx=True, **request.param)
    return read_checkpoint(save_checkpoint(model, tmp_path / "checkpoint"))


@pytest.fixture
def opened(source: Checkpoint) -> LayerwiseModel:
    return LayerwiseModel(source)


def windows(seed: int, count: int = 12) -> list[TokenArray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 113, length) for length in rng.integers(20, 60, count)]


def select_storage(_name: str, inputs: int) -> Storage:
    return fit_storage(STORAGE, inputs)


def predictions(model: LayerwiseModel, window: TokenArray) -> torch.Tensor:
    hidden = model.embed(window)
    for layer in range(len(model.layers)):
        hidden = model.run_layer(layer, hidden)
    return model.log_probabilities(hidden)


def test_the_layerwise_model_predicts_like_the_whole_model(
    opened: LayerwiseModel, source: Checkpoint
) -> None:
    from transformers import GPT2LMHeadModel

    window = windows(5)[0]
    model = GPT2LMHeadModel.from_pretrained(source.directory, attn_implementation="eager")
    with torch.no_grad():
        logits = model(torch.from_numpy(window[np.newaxis])).logits[0]
    torch.testing.assert_close(
        predictions(opened, window), torch.log_softmax(logits, -1), atol=1e-4, rtol=0
    )


def test_a_gptq_model_diverges_less_than_a_rounded_one(
    opened: LayerwiseModel, source: Checkpoint
) -> None:
    before = {name: source.weights[name].copy() for name in source.weights}
    texts = windows(2)
    exact = [predictions(opened, window) for window in texts]
    rounded = LayerwiseModel(source)
    blocks = quantize_model_with_gptq(
        opened, windows(1, 60), select_storage, lambda _done, _total: None
    )
    stored = list(rounded.block_matrices(select_storage, lambda _done, _total: None))
    assert list(blocks) == [name for name, _, _ in stored]
    for name, weight, storage in stored:
        assert blocks[name].dequantize().shape == weight.shape
        if name != HEAD:
            rounded.replace_weight(name, round_to_nearest(name, weight, storage))
    losses = [
        sum(
            divergence(expected, predictions(model, window))
            for expected, window in zip(exact, texts, strict=True)
        )
        for model in (opened, rounded)
    ]
    assert 0 < losses[0] < 0.8 * losses[1]
    for name, weight in before.items():
        np.testing.assert_array_equal(source.weights[name], weight)


def test_sensitivity_is_the_divergence_that_a_matrix_alone_causes(opened: LayerwiseModel) -> None:
    texts = windows(4, 3)
    exact = [predictions(opened, window) for window in texts]
    blocks = {
        name: round_to_nearest(name, weight, storage)
        for name, weight, storage in opened.block_matrices(
            select_storage, lambda _done, _total: None
        )
        if name != HEAD
    }
    measured = measure_sensitivity(opened, texts, blocks, lambda _done, _total: None)
    assert list(measured) == list(blocks)
    tokens = sum(map(len, texts))
    for name in ("h.0.attn.c_proj", "h.2.mlp.c_proj"):
        with opened.replaced_weight(name, blocks[name]):
            total = sum(
                divergence(expected, predictions(opened, window)) * len(window)
                for expected, window in zip(exact, texts, strict=True)
            )
        assert measured[name] == pytest.approx(total / tokens, rel=1e-3)
    for expected, window in zip(exact, texts, strict=True):
        torch.testing.assert_close(predictions(opened, window), expected, atol=1e-6, rtol=0)


def test_matrices_are_kept_by_sensitivity_per_byte() -> None:
    divergence_of = {"a": 3.0, "b": 4.0, "c": 0.1, "d": 2.0}
    extra = {"a": 10, "b": 100, "c": 10, "d": 10}
    assert choose_mixed_precision(divergence_of, extra, 0) == frozenset()
    assert choose_mixed_precision(divergence_of, extra, 10) == {"a"}
    # A matrix that exceeds the budget is skipped for smaller ones.
    assert choose_mixed_precision(divergence_of, extra, 30) == {"a", "d", "c"}
    assert choose_mixed_precision(divergence_of, extra, 120) == {"a", "d", "b"}


def divergence(expected: torch.Tensor, actual: torch.Tensor) -> float:
    return float((expected.exp() * (expected - actual)).sum(-1).mean())
