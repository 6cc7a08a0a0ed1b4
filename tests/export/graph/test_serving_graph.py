"""The serving graph computes what PyTorch computes, however the tokens reach it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
    """Logits of a full recomputation in PyTorch, [tokens, vocabulary]."""
    with torch.no_grad():
        logits: FloatArray = model(torch.from_numpy(tokens[np.newaxis])).logits[0].numpy()
    return logits


def some_tokens(count: int, vocabulary: int = 113, seed: int = 0) -> TokenArray:
    return np.random.default_rng(seed).integers(0, vocabulary, count)


@pytest.fixture(params=list(SHAPES.values()), ids=list(SHAPES))
def model(request: pytest.FixtureRequest, make_model: Any) -> Any:
    return make_model(**request.param)


def test_prefill_equals_pytorch(model: Any, serve: Any) -> None:
    tokens = some_tokens(40)
    np.testing.assert_allclose(
        serve(model).prefill(0, tokens), oracle(model, tokens), atol=TOLERANCE, rtol=0
    )


def test_chunks_of_a_prompt_equal_the_whole(model: Any, serve: Any) -> None:
    tokens = some_tokens(40)
    served = serve(model)
    logits = [
        served.run(slice(0, 1), tokens[np.newaxis, start:end], np.array([start]))
        for start, end in [(0, 7), (7, 8), (8, 39), (39, 40)]
    ]
    np.testing.assert_allclose(
        np.concatenate(logits), oracle(model, tokens), atol=TOLERANCE, rtol=0
    )


def test_rows_of_different_lengths_decode_together_as_alone(model: Any, serve: Any) -> None:
    rows = [some_tokens(count, seed=count) for count in (30, 9, 17)]
    prompts = np.array([20, 1, 11])
    served = serve(model, slots=3)
    for slot, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        served.prefill(slot, row[:prompt])
    for step in range(6):
        lengths = prompts + step
        tokens = np.array([row[length] for row, length in zip(rows, lengths, strict=True)])
        logits = served.decode(tokens, lengths)
        expected = [
            oracle(model, row[: length + 1])[-1] for row, length in zip(rows, lengths, strict=True)
        ]
        np.testing.assert_allclose(logits, np.stack(expected), atol=TOLERANCE, rtol=0)


def test_the_whole_context_can_be_used_and_no_more(make_model: Any, serve: Any) -> None:
    model = make_model()
    tokens = some_tokens(64)
    served = serve(model)
    served.prefill(0, tokens[:63])
    last = served.decode(tokens[63:], np.array([63]))
    np.testing.assert_allclose(last, oracle(model, tokens)[-1:], atol=TOLERANCE, rtol=0)
    with pytest.raises(ValueError, match="65 tokens do not fit into a slot of 64"):
        served.decode(tokens[:1], np.array([64]))


def test_what_lies_in_the_cache_beyond_a_row_does_not_matter(make_model: Any, serve: Any) -> None:
    model = make_model()
    tokens = some_tokens(20)
    served = serve(model, slots=2)
    for buffer in served._cache.values():
        buffer.fill(np.nan)
    for slot in range(2):
        served.prefill(slot, tokens[: 10 - slot])
    logits = served.decode(tokens[[10, 9]], np.array([10, 9]))
    expected = np.stack([oracle(model, tokens[:11])[-1], oracle(model, tokens[:10])[-1]])
    np.testing.assert_allclose(logits, expected, atol=TOLERANCE, rtol=0)


def test_the_cache_is_updated_in_place_and_only_where_tokens_are_new(
    make_model: Any, serve: Any
) -> None:
    served = serve(make_model(), slots=3)
    for buffer in served._cache.values():
        buffer.fill(7.0)
    served.prefill(1, some_tokens(5))
    for buffer in served._cache.values():
        assert (buffer[[0, 2]] == 7.0).all()
        assert (buffer[1, :, 5:] == 7.0).all()
        assert (buffer[1, :, :5] != 7.0).all()


@pytest.mark.parametrize("profile", [Profile.FP32, Profile.INT8])
def test_logits_come_for_the_wanted_rows_only(
    make_model: Any, serve: Any, profile: Profile
) -> None:
    """A chunk of a prompt whose logits nobody reads costs no head."""
    served = serve(make_model(), profile)
    tokens = some_tokens(6)[np.newaxis]
    everything = served.prefill(0, tokens[0])
    session: onnxruntime.InferenceSession = served._session
    for rows in ([5], [4, 1, 1], []):
        inputs = {
            "input_ids": tokens,
            "position_ids": np.arange(6)[np.newaxis],
            "seqlens_k": np.array([5], np.int32),
            "total_sequence_length": np.array(6, np.int32),
            "logits_rows": np.array(rows, np.int64),
            "logits_ids": np.empty(0, np.int64),
        } | {f"past_key_values.{name}": buffer for name, buffer in served._cache.items()}
        logits = session.run(["logits"], inputs)[0]
        assert logits.shape == (len(rows), 113)
        # Few rows and many have a head each, whose weights are rounded differently.
        atol = 1e-5 if profile is Profile.FP32 else 0.02 * np.ptp(everything)
        np.testing.assert_allclose(logits, everything[rows], atol=atol)


@pytest.mark.parametrize("profile", [Profile.FP32, Profile.INT8, Profile.INT4])
def test_logits_come_for_the_wanted_tokens_only(
    model: Any, make_runner: Any, profile: Profile
) -> None:
    """Where a grammar allows few tokens, the head is computed for these alone."""
    runner = make_runner(model, profile)
    tokens, ids = some_tokens(6).tolist(), np.array([3, 112, 0, 50])
    everything = runner.run_chunk(0, tokens, 0, [0, 5])
    some = runner.run_chunk(0, tokens, 0, [0, 5], ids)
    assert some.shape == (2, 4)
    # The whole head is rounded to 4 bits, and what goes into it to 8; some of it is not.
    atol = {Profile.FP32: 1e-5, Profile.INT8: 0.02, Profile.INT4: 0.15}[profile]
    atol *= np.ptp(everything)
    np.testing.assert_allclose(some, everything[:, ids], atol=atol)
    again = runner.decode([7], [6], ids)
    np.testing.assert_allclose(again, runner.decode([7], [6])[:, ids], atol=atol)


@pytest.mark.parametrize("profile", [Profile.FP32, Profile.INT8, Profile.INT4])
def test_the_graph_tells_what_makes_log_probabilities_of_logits(
    model: Any, make_runner: Any, profile: Profile
) -> None:
    runner = make_runner(model, profile)
    chunk = runner.run_chunk(0, some_tokens(6).tolist(), 0, [0, 5])
    expected = np.logaddexp.reduce(chunk.astype(np.float64), axis=1)
    np.testing.assert_allclose(runner.logsumexp, expected, atol=1e-5)
    step = runner.decode([7], [6])
    expected = np.logaddexp.reduce(step.astype(np.float64), axis=1)
    np.testing.assert_allclose(runner.logsumexp, expected, atol=1e-5)
    runner.decode([7], [6], np.array([3, 112]))
    assert runner.logsumexp is None  # The sum over some tokens is of no use.


def test_greedy_tokens_equal_those_of_transformers(model: Any, serve: Any) -> None:
    prompt = some_tokens(5)
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
        logits = served.decode(np.array(tokens[-1:]), np.array([len(tokens) - 1]))
    np.testing.assert_array_equal(tokens, expected)


@pytest.mark.parametrize(
    "activation",
    ["gelu_new", "gelu", "relu", "silu", "tanh", "quick_gelu", "gelu_pytorch_tanh", "gelu_fast"],
)
def test_activation_functions_equal_those_of_transformers(
    make_model: Any, serve: Any, activation: str
) -> None:
    model = make_model(activation_function=activation)
    tokens = some_tokens(20)
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
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
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
    tokens = some_tokens(data.draw(st.integers(2, 64)), vocabulary)
    prompt = data.draw(st.integers(1, len(tokens) - 1))
    served = serve(model)
    logits = [served.prefill(0, tokens[:prompt])]
    logits += [
        served.decode(tokens[at : at + 1], np.array([at])) for at in range(prompt, len(tokens))
    ]
    np.testing.assert_allclose(
        np.concatenate(logits), oracle(model, tokens), atol=TOLERANCE, rtol=0
    )


@pytest.mark.parametrize("profile", [Profile.INT8, Profile.INT4])
def test_every_matrix_is_near_enough_to_its_node_to_be_prepared(
    make_model: Any, serve: Any, tmp_path: Path, profile: Profile
) -> None:
    """onnxruntime packs a matrix of the node's own graph or of the one above, and no other."""
    serve(make_model(), profile)
    graph = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph
    products = list(matrices(graph, []))
    assert len(products) > 4
    assert all(depth <= 1 for depth in products)


def matrices(graph: Any, above: list[set[str]]) -> Iterator[int]:
    """Yield for each quantized product how many graphs above it its matrix is."""
    scopes = [{tensor.name for tensor in graph.initializer}, *above]
    for node in graph.node:
        if node.op_type in {"MatMulNBits", "DynamicQuantizeMatMul"}:
            yield next(depth for depth, names in enumerate(scopes) if node.input[1] in names)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from matrices(attribute.g, scopes)
