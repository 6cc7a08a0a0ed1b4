"""The serving graph computes PyTorch's logits, in whatever chunks tokens arrive."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.served_graph import by_position

from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.recipe import Profile

TOLERANCE = 1e-4

SHAPES: dict[str, dict[str, Any]] = {
    "odd width": {},
    "three layers, inverse layer scaling": {
        "n_layer": 3,
        "scale_attn_by_inverse_layer_idx": True,
    },
    "no attention scaling": {"scale_attn_weights": False},
    "untied head, odd inner width": {"tie_word_embeddings": False, "n_inner": 70},
    "head size no multiple of eight": {"n_embd": 50, "n_head": 5},
    "one head of one layer": {"n_layer": 1, "n_head": 1},
    "large layer norm epsilon": {"layer_norm_epsilon": 0.1},
}


def oracle(model: Any, tokens: TokenArray) -> FloatArray:
    """Return the logits of a full recomputation in PyTorch, [tokens, vocabulary]."""
    with torch.no_grad():
        logits: FloatArray = model(torch.from_numpy(tokens[np.newaxis])).logits[0].numpy()
    return logits


def random_tokens(count: int, vocabulary: int = 113, seed: int = 0) -> TokenArray:
    return np.random.default_rng(seed).integers(0, vocabulary, count)


@pytest.fixture(params=list(SHAPES.values()), ids=list(SHAPES))
def model(request: pytest.FixtureRequest, make_model: Any) -> Any:
    return make_model(**request.param)


def test_prefill_equals_pytorch(model: Any, serve: Any) -> None:
    tokens = random_tokens(40)
    np.testing.assert_allclose(
        serve(model).prefill(0, tokens), oracle(model, tokens), atol=TOLERANCE, rtol=0
    )


def test_chunks_of_a_prompt_equal_the_whole(model: Any, serve: Any) -> None:
    tokens = random_tokens(40)
    served = serve(model)
    logits = [
        served.extend(0, tokens[start:end], past=start)
        for start, end in [(0, 7), (7, 8), (8, 39), (39, 40)]
    ]
    np.testing.assert_allclose(
        np.concatenate(logits), oracle(model, tokens), atol=TOLERANCE, rtol=0
    )


def test_rows_of_different_lengths_decode_together_as_alone(model: Any, serve: Any) -> None:
    rows = [random_tokens(count, seed=count) for count in (30, 9, 17)]
    prompts = np.array([20, 1, 11])
    served = serve(model, slots=3)
    for slot, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        served.prefill(slot, row[:prompt])
    for step in range(6):
        lengths = prompts + step
        tokens = np.array([row[length] for row, length in zip(rows, lengths, strict=True)])
        logits = served.step(tokens, lengths)
        expected = [
            oracle(model, row[: length + 1])[-1] for row, length in zip(rows, lengths, strict=True)
        ]
        np.testing.assert_allclose(logits, np.stack(expected), atol=TOLERANCE, rtol=0)


def test_the_whole_context_can_be_used_and_no_more(make_model: Any, serve: Any) -> None:
    model = make_model()
    tokens = random_tokens(64)
    served = serve(model)
    served.prefill(0, tokens[:63])
    last = served.step(tokens[63:], np.array([63]))
    np.testing.assert_allclose(last, oracle(model, tokens)[-1:], atol=TOLERANCE, rtol=0)
    with pytest.raises(ValueError, match="position 64 exceeds the slot's capacity 64"):
        served.step(tokens[:1], np.array([64]))


def test_cache_content_beyond_a_row_has_no_effect(make_model: Any, serve: Any) -> None:
    model = make_model()
    tokens = random_tokens(20)
    served = serve(model, slots=2)
    for buffer in served._cache.values():
        buffer.fill(np.nan)
    for slot in range(2):
        served.prefill(slot, tokens[: 10 - slot])
    logits = served.step(tokens[[10, 9]], np.array([10, 9]))
    expected = np.stack([oracle(model, tokens[:11])[-1], oracle(model, tokens[:10])[-1]])
    np.testing.assert_allclose(logits, expected, atol=TOLERANCE, rtol=0)


def test_the_cache_is_updated_in_place_and_only_where_tokens_are_new(
    make_model: Any, serve: Any
) -> None:
    served = serve(make_model(), slots=3)
    for buffer in served._cache.values():
        buffer.fill(7.0)
    served.prefill(1, random_tokens(5))
    for buffer in map(by_position, served._cache.values()):
        assert (buffer[[0, 2]] == 7.0).all()
        assert (buffer[1, :, 5:] == 7.0).all()
        assert (buffer[1, :, :5] != 7.0).all()


@pytest.mark.parametrize("profile", [Profile.FP32, Profile.INT8])
def test_logits_are_computed_for_the_requested_rows_only(
    make_model: Any, serve: Any, profile: Profile
) -> None:
    """A chunk of a prompt with unused logits runs no head."""
    served = serve(make_model(), profile)
    tokens = random_tokens(6)
    everything = served.prefill(0, tokens)
    for rows in ([5], [4, 1, 1], []):
        logits = served.run(tokens.tolist(), [0] * 6, range(6), rows)
        assert logits.shape == (len(rows), 113)
        np.testing.assert_allclose(logits, everything[rows], atol=1e-5)


@pytest.mark.parametrize("profile", [Profile.FP32, Profile.INT8, Profile.INT4])
def test_restricted_logits_equal_those_of_the_whole_vocabulary(
    model: Any, make_runner: Any, profile: Profile
) -> None:
    """A grammar that allows few tokens restricts the head to these."""
    runner = make_runner(model, profile)
    run = random_tokens(6).tolist(), [0] * 6, range(6), [0, 5]
    ids = np.array([3, 112, 0, 50])
    restricted, everything = runner.run(*run, ids), runner.run(*run)
    assert restricted.shape == (2, 4)
    atol = 1e-5 if profile is Profile.FP32 else 0
    np.testing.assert_allclose(restricted, everything[:, ids], atol=atol, rtol=0)


def test_greedy_tokens_equal_those_of_transformers(model: Any, serve: Any) -> None:
    prompt = random_tokens(5)
    expected = model.generate(
        torch.from_numpy(prompt[np.newaxis]),
        attention_mask=torch.ones(1, 5),
        max_new_tokens=30,
        min_new_tokens=30,
        do_sample=False,
        pad_token_id=0,
        suppress_tokens=[0],
    )[0].numpy()
    served = serve(model)
    tokens = list(prompt)
    logits = served.prefill(0, prompt)[-1:]
    while len(tokens) < len(expected):
        logits[:, 0] = -np.inf
        tokens.append(int(logits[0].argmax()))
        logits = served.step(np.array(tokens[-1:]), np.array([len(tokens) - 1]))
    np.testing.assert_array_equal(tokens, expected)


@pytest.mark.parametrize(
    "activation",
    ["gelu_new", "gelu", "relu", "silu", "tanh", "quick_gelu", "gelu_pytorch_tanh", "gelu_fast"],
)
def test_activation_functions_equal_those_of_transformers(
    make_model: Any, serve: Any, activation: str
) -> None:
    model = make_model(activation_function=activation)
    tokens = random_tokens(20)
    np.testing.assert_allclose(
        serve(model).prefill(0, tokens), oracle(model, tokens), atol=TOLERANCE, rtol=0
    )


@given(
    layers=st.integers(1, 3),
    heads=st.integers(1, 4),
    head_size=st.integers(1, 20),
    vocabulary=st.integers(2, 40),
    inner=st.none() | st.integers(1, 70),
    tied=st.booleans(),
    scaled=st.booleans(),
    by_layer=st.booleans(),
    data=st.data(),
)
@settings(max_examples=examples(40), suppress_health_check=list(HealthCheck))
def test_any_shape_equals_pytorch(
    make_model: Any,
    serve: Any,
    *,
    layers: int,
    heads: int,
    head_size: int,
    vocabulary: int,
    inner: int | None,
    tied: bool,
    scaled: bool,
    by_layer: bool,
    data: st.DataObject,
) -> None:
    model = make_model(
        n_layer=layers,
        n_head=heads,
        n_embd=heads * head_size,
        vocab_size=vocabulary,
        n_inner=inner,
        tie_word_embeddings=tied,
        scale_attn_weights=scaled,
        scale_attn_by_inverse_layer_idx=by_layer,
    )
    tokens = random_tokens(data.draw(st.integers(2, 64)), vocabulary)
    prompt = data.draw(st.integers(1, len(tokens) - 1))
    served = serve(model)
    logits = [served.prefill(0, tokens[:prompt])]
    logits += [
        served.step(tokens[at : at + 1], np.array([at])) for at in range(prompt, len(tokens))
    ]
    np.testing.assert_allclose(
        np.concatenate(logits), oracle(model, tokens), atol=TOLERANCE, rtol=0
    )
