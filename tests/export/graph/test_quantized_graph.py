"""Quantized graphs compute with the weights that their codes represent."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tests.support.served_graph import ServedGraph, by_position, weights_of

from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.graph.cache import CacheScales
from gpt2flow.export.graph.head_padding import padded_head_size
from gpt2flow.export.graph.serving_graph import write_serving_graph
from gpt2flow.export.quantization.rounding import round_to_nearest
from gpt2flow.export.recipe import (
    FP32_STORAGE,
    RECIPES,
    Profile,
    ProfileRecipe,
    Storage,
    fit_storage,
)

FP32, INT8, INT4 = (RECIPES[Profile(name)] for name in ("fp32", "int8", "int4"))
TOKENS = np.random.default_rng(3).integers(0, 113, 30)

SHAPES = {
    "blocks of 16": {},
    "blocks of 128": {"n_embd": 128, "n_head": 2},
    "untied, one padded matrix": {"tie_word_embeddings": False, "n_inner": 70},
    "padded heads": {"n_embd": 48, "n_head": 4},
    "all matrices padded": {"n_embd": 50, "n_head": 5, "n_inner": 70},
}


class Graph:
    """A serving graph of a random model, and its reported storage."""

    def __init__(self, folder: Path, model: Any, recipe: ProfileRecipe, **options: Any) -> None:
        self.architecture = Architecture.from_config(model.config.to_dict())
        self.path = folder / "model.onnx"
        self.storage = write_serving_graph(
            self.path, self.architecture, weights_of(model), recipe, **options
        )

    def open(self, slots: int = 1, kernels: str | None = None) -> ServedGraph:
        return ServedGraph(self.path, self.architecture, slots, kernels)


@pytest.fixture(params=list(SHAPES.values()), ids=list(SHAPES))
def model(request: pytest.FixtureRequest, make_model: Any) -> Any:
    return make_model(**request.param)


@pytest.mark.parametrize("recipe", [INT8, INT4], ids=["int8", "int4"])
def test_a_quantized_graph_uses_the_dequantized_blocks(
    model: Any, tmp_path: Path, recipe: ProfileRecipe
) -> None:
    """With activations in fp32, only the rounding of weights differs from fp32."""
    graph = Graph(tmp_path, model, recipe)
    served = run_in_chunks(graph.open(), 7)
    # In PyTorch, only an untied head can be rounded differently from the embedding.
    model = untied(model)
    disable_activation_rounding(graph.path)
    exact = run_in_chunks(graph.open(kernels="onnxruntime"), 7)
    round_weights(model, graph.architecture, recipe)
    expected = Graph(tmp_path, model, FP32).open().prefill(0, TOKENS)
    np.testing.assert_allclose(exact, expected, atol=1e-4, rtol=0)
    # Rounding activations to 8 bits adds about the same error as 8-bit weights.
    assert 0 < np.abs(served - expected).max() < 0.1 * np.ptp(expected)


def test_an_outlier_row_does_not_reduce_the_accuracy_of_others(
    make_model: Any, tmp_path: Path
) -> None:
    """A GPT-2's first token may have activations thousands of times larger."""
    model = make_model(n_layer=1, n_inner=192, tie_word_embeddings=False)
    without_outlier = Graph(tmp_path, model, INT8).open().prefill(0, TOKENS)
    with torch.no_grad():
        # The first channel of one token drives one inner channel to extreme values.
        model.transformer.wte.weight[TOKENS[0], 0] = 40
        model.transformer.h[0].mlp.c_fc.weight[0, 0] = 200
        model.transformer.h[0].mlp.c_proj.weight[0] = 0
    expected = Graph(tmp_path, model, FP32).open().prefill(0, TOKENS)
    served = Graph(tmp_path, model, INT8).open().prefill(0, TOKENS)
    others = np.flatnonzero(TOKENS[0] != TOKENS)
    assert np.abs(served - expected)[others].max() < 0.2 * np.ptp(without_outlier)


@pytest.fixture
def cached(make_model: Any, tmp_path: Path) -> Graph:
    """A graph with exact weights, to isolate its int8 cache's error."""
    model = make_model(n_layer=3)
    exact = Graph(tmp_path, model, FP32).open()
    exact.prefill(0, TOKENS)
    arrays = [
        np.stack(
            [
                np.abs(by_position(exact._cache[f"{layer}.{part}"])[0]).max(1) / 127
                for layer in range(3)
            ]
        )
        for part in ("key", "value")
    ]
    sizes = slice(0, 16)
    scales = CacheScales(*(array[..., sizes] for array in arrays))
    return Graph(tmp_path, model, FP32, cache_scales=scales)


def test_prefill_and_decode_fill_an_int8_cache_alike(cached: Graph) -> None:
    at_once, one_by_one = cached.open(), cached.open()
    at_once.prefill(0, TOKENS)
    run_in_chunks(one_by_one, 1)
    for name, codes in at_once._cache.items():
        assert codes.dtype == np.int8
        filled, other = by_position(codes), by_position(one_by_one._cache[name])
        difference = np.abs(filled.astype(int) - other)
        # The products of an fp32 graph round differently in batches.
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01
        assert np.abs(filled[0, :, : len(TOKENS)].astype(int)).max() >= 126
        assert not filled[0, :, len(TOKENS) :].any()


@pytest.mark.parametrize("size", [1, 2, 7, 30])
def test_chunks_on_an_int8_cache_stay_close_to_the_exact_logits(
    cached: Graph, make_model: Any, tmp_path: Path, size: int
) -> None:
    logits = run_in_chunks(cached.open(), size)
    (tmp_path / "exact").mkdir()
    exact = Graph(tmp_path / "exact", make_model(n_layer=3), FP32).open().prefill(0, TOKENS)
    error = np.abs(logits - exact)
    assert 0 < error.max() < 0.05 * np.ptp(exact)


def test_rows_decode_together_on_an_int8_cache_as_alone(cached: Graph) -> None:
    together = cached.open(slots=3)
    alone = []
    for slot, length in enumerate((9, 4, 20)):
        single = cached.open()
        for served, place in ((together, slot), (single, 0)):
            served.prefill(place, TOKENS[:length])
        alone.append(single.step(TOKENS[length : length + 1], np.array([length])))
    logits = together.step(TOKENS[[9, 4, 20]], np.array([9, 4, 20]))
    np.testing.assert_allclose(logits, np.concatenate(alone), atol=1e-4)


@pytest.mark.parametrize("recipe", [INT8, INT4], ids=["int8", "int4"])
def test_a_quantized_graph_has_no_fp32_matrices(
    model: Any, tmp_path: Path, recipe: ProfileRecipe
) -> None:
    graph = Graph(tmp_path, model, recipe)
    assert FP32_STORAGE not in graph.storage.values()
    nodes = onnx.load(graph.path, load_external_data=False).graph.node
    assert not [node for node in nodes if node.op_type in {"MatMul", "Gemm", "If"}]


@pytest.mark.parametrize("tied", [True, False])
def test_an_fp32_head_shares_the_bytes_of_a_tied_embedding(
    make_model: Any, tmp_path: Path, *, tied: bool
) -> None:
    Graph(tmp_path, make_model(tie_word_embeddings=tied), FP32)
    weights = sum(each.size for each in weights_of(make_model(tie_word_embeddings=tied)).values())
    tables = 1 if tied else 2
    body = weights - 2 * 113 * 48
    size = (tmp_path / "model.onnx.data").stat().st_size
    assert abs(size - 4 * (body + tables * 113 * 48)) < 8192


def test_storage_is_reported_for_every_matrix(make_model: Any, tmp_path: Path) -> None:
    storage = Graph(tmp_path, make_model(n_layer=1, n_inner=70), INT4).storage
    four, eight = Storage(4, 16), Storage(8, 16)
    assert storage == {
        "wte": eight,
        "wpe": eight,
        "h.0.attn.c_attn": four,
        "h.0.attn.c_proj": four,
        "h.0.mlp.c_fc": four,
        "h.0.mlp.c_proj": eight,
        "lm_head": four,
    }


def test_kept_matrices_have_8_bits(make_model: Any, tmp_path: Path) -> None:
    kept = frozenset({"h.1.mlp.c_proj"})
    storage = Graph(tmp_path, make_model(), INT4, kept=kept).storage
    bits = {name: stored.bits for name, stored in storage.items() if name.startswith("h.")}
    assert [name for name, count in bits.items() if count == 8] == ["h.1.mlp.c_proj"]


def run_in_chunks(served: ServedGraph, size: int) -> FloatArray:
    """Return the logits after each token, running `size` tokens at once."""
    starts = range(0, len(TOKENS), size)
    chunks: list[TokenArray] = [TOKENS[start : start + size] for start in starts]
    return np.concatenate(
        [served.extend(0, chunk, past=start) for start, chunk in zip(starts, chunks, strict=True)]
    )


def all_nodes(model: Any) -> Iterator[Any]:
    """Yield the nodes of a model and of its functions."""
    yield from model.graph.node
    for function in model.functions:
        yield from function.node


def disable_activation_rounding(path: Path) -> None:
    """Set `accuracy_level` to 1, so that activations stay fp32."""
    model = onnx.load(path, load_external_data=False)
    for node in all_nodes(model):
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 1
    path.write_bytes(model.SerializeToString())


def untied(model: Any) -> Any:
    """Return the model with an untied head of the same weights."""
    copy = type(model)(
        type(model.config)(**model.config.to_dict() | {"tie_word_embeddings": False})
    )
    state = model.state_dict()
    copy.load_state_dict(state | {"lm_head.weight": state["lm_head.weight"].clone()})
    return copy.eval()


def round_weights(model: Any, architecture: Architecture, recipe: ProfileRecipe) -> None:
    """Replace every matrix by its dequantized codes.

    Rows that padding adds are zero, so the blocks of a padded matrix start anew at each head.
    """
    padding = padded_head_size(architecture) - architecture.head_size
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            continue
        entries = name.split(".")[-2] in {"wte", "wpe", "lm_head"}
        matrix = parameter.detach().numpy()
        matrix = matrix.T if entries else matrix
        heads = architecture.heads if name.endswith("attn.c_proj.weight") and padding else 1
        split = matrix.reshape(heads, -1, matrix.shape[1])
        padded = np.pad(split, ((0, 0), (0, padding if heads > 1 else 0), (0, 0)))
        flat = padded.reshape(-1, matrix.shape[1])
        requested = recipe.embeddings if entries else recipe.body
        if "lm_head" in name:
            requested = recipe.head
        rounded = _rounded(flat, requested).reshape(padded.shape)
        rounded = rounded[:, : split.shape[1]].reshape(matrix.shape)
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(rounded.T if entries else rounded))


def _rounded(matrix: FloatArray, requested: Storage) -> FloatArray:
    storage = fit_storage(requested, len(matrix))
    return round_to_nearest("", matrix, storage).dequantize()[: len(matrix)]
