"""Quantized graphs compute with the weights that their codes represent."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tests.support.served_graph import ServedGraph, weights_of

from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.graph.cache import CacheScales
from gpt2flow.export.graph.model_writer import make_value_info
from gpt2flow.export.graph.serving_graph import (
    LARGE_BATCH,
    RESTRICTED,
    SMALL_BATCH,
    GraphFacts,
    write_serving_graph,
)
from gpt2flow.export.quantization.rounding import quantize_columns, round_to_nearest
from gpt2flow.export.recipe import (
    COLUMNS,
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
    "untied, one matrix in columns": {"tie_word_embeddings": False, "n_inner": 70},
    "padded heads": {"n_embd": 48, "n_head": 4},
    "no blocks at all": {"n_embd": 50, "n_head": 5, "n_inner": 70},
}


class Graph:
    """A serving graph of a random model, and its reported storage."""

    def __init__(self, folder: Path, model: Any, recipe: ProfileRecipe, **options: Any) -> None:
        self.architecture = Architecture.from_config(model.config.to_dict())
        self.path = folder / "model.onnx"
        self.facts: GraphFacts = write_serving_graph(
            self.path, self.architecture, weights_of(model), recipe, **options
        )

    def open(self, slots: int = 1) -> ServedGraph:
        return ServedGraph(self.path, self.architecture, slots)


@pytest.fixture(params=list(SHAPES.values()), ids=list(SHAPES))
def model(request: pytest.FixtureRequest, make_model: Any) -> Any:
    return make_model(**request.param)


@pytest.mark.parametrize("recipe", [INT8, INT4], ids=["int8", "int4"])
def test_small_batches_use_the_dequantized_blocks(
    model: Any, tmp_path: Path, recipe: ProfileRecipe
) -> None:
    """With activations in fp32, only the rounding of weights differs from fp32."""
    graph = Graph(tmp_path, model, recipe)
    small_batch = [storage for name, storage in graph.facts.storage.items() if "wide" not in name]
    if COLUMNS in small_batch:
        pytest.skip("columns always round activations; another test covers them")
    served = run_in_chunks(graph.open(), recipe.small_batch_rows or 1)
    # In PyTorch, only an untied head can be rounded differently from the embedding.
    model = untied(model)
    disable_activation_rounding(graph.path)
    exact = run_in_chunks(graph.open(), recipe.small_batch_rows or 1)
    round_weights(model, graph.architecture, recipe)
    expected = Graph(tmp_path, model, FP32).open().prefill(0, TOKENS)
    np.testing.assert_allclose(exact, expected, atol=1e-4, rtol=0)
    # Rounding activations to 8 bits adds about the same error as 8-bit weights.
    assert 0 < np.abs(served - expected).max() < 0.1 * np.ptp(expected)


@pytest.mark.parametrize("recipe", [INT8, INT4], ids=["int8", "int4"])
def test_large_batches_use_8_bit_columns(model: Any, tmp_path: Path, recipe: ProfileRecipe) -> None:
    served = Graph(tmp_path, model, recipe).open().prefill(0, TOKENS)
    round_weights(model, Architecture.from_config(model.config.to_dict()), None)
    expected = Graph(tmp_path, model, FP32).open().prefill(0, TOKENS)
    error = np.abs(served - expected)
    assert error.max() < 0.1 * np.ptp(expected)
    assert error.mean() < 0.015 * np.ptp(expected)


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


@pytest.mark.parametrize("recipe", [INT8, INT4], ids=["int8", "int4"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("heads", [{"n_embd": 48, "n_head": 3}, {"n_embd": 50, "n_head": 5}])
def test_restricted_logits_use_the_dequantized_entries(
    make_model: Any, tmp_path: Path, heads: dict[str, int], *, tied: bool, recipe: ProfileRecipe
) -> None:
    """The entries are those of the embedding or of an untied head."""
    model = make_model(tie_word_embeddings=tied, **heads)
    graph = Graph(tmp_path, model, recipe)
    expose_hidden(graph)
    served = graph.open()
    weight = model.lm_head.weight.detach().numpy()
    entries = _rounded(weight.T, recipe.embeddings).T
    ids = np.array([3, 112, 0, 50, 3])
    for rows in ([29], [4, 1, 1, 0, 9, 8, 7], []):
        inputs = {
            "input_ids": TOKENS[np.newaxis],
            "position_ids": np.arange(len(TOKENS))[np.newaxis],
            "seqlens_k": np.array([len(TOKENS) - 1], np.int32),
            "total_sequence_length": np.array(len(TOKENS), np.int32),
            "logits_rows": np.array(rows, np.int64),
            "logits_ids": ids,
        } | {f"past_key_values.{name}": buffer for name, buffer in served._cache.items()}
        hidden, logits = served._session.run(["hidden", "logits"], inputs)
        assert hidden.shape == (len(rows), heads["n_embd"])
        np.testing.assert_allclose(logits, hidden @ entries[ids].T, atol=1e-4)


@pytest.fixture
def cached(make_model: Any, tmp_path: Path) -> Graph:
    """A graph with exact weights, to isolate its int8 cache's error."""
    model = make_model(n_layer=3)
    exact = Graph(tmp_path, model, FP32).open()
    exact.prefill(0, TOKENS)
    arrays = [
        np.stack([np.abs(exact._cache[f"{layer}.{part}"][0]).max(1) / 127 for layer in range(3)])
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
        difference = np.abs(codes.astype(int) - one_by_one._cache[name])
        # The inputs of the first layer are the same; codes differ only by ties of rounding.
        assert difference.max() <= (1 if name.startswith("0") else 6)
        assert (difference > 0).mean() < (0.01 if name.startswith("0") else 0.5)
        assert np.abs(codes[0, :, : len(TOKENS)].astype(int)).max() >= 126
        assert not codes[0, :, len(TOKENS) :].any()


@pytest.mark.parametrize("size", [1, 2, 7, 30])
def test_chunks_on_an_int8_cache_stay_close_to_the_exact_logits(
    cached: Graph, make_model: Any, tmp_path: Path, size: int
) -> None:
    logits = run_in_chunks(cached.open(), size)
    (tmp_path / "exact").mkdir()
    exact = Graph(tmp_path / "exact", make_model(n_layer=3), FP32).open().prefill(0, TOKENS)
    error = np.abs(logits - exact)
    assert error.max() < 0.05 * np.ptp(exact)
    if size == len(TOKENS):
        # New tokens are attended to before they are quantized.
        np.testing.assert_allclose(logits, exact, atol=1e-4)
    else:
        assert error.max() > 0


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
def test_a_quantized_graph_has_neither_fp32_matrices_nor_slow_products(
    model: Any, tmp_path: Path, recipe: ProfileRecipe
) -> None:
    graph = Graph(tmp_path, model, recipe)
    assert FP32_STORAGE not in graph.facts.storage.values()
    nodes = list(all_nodes(onnx.load(graph.path, load_external_data=False).graph))
    # Only restricted logits multiply dequantized entries.
    exact = [node for node in nodes if node.op_type in {"MatMul", "Gemm"}]
    assert [list(node.input) for node in exact] == [["hidden", f"{RESTRICTED}lm_head.output"]]
    for node in nodes:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "MatMulNBits":
            assert attributes["accuracy_level"] == 4


@pytest.mark.parametrize("recipe", [FP32, INT8], ids=["fp32", "int8"])
def test_a_tied_head_shares_the_bytes_of_the_embedding(
    make_model: Any, tmp_path: Path, recipe: ProfileRecipe
) -> None:
    sizes = {}
    for tied in (True, False):
        Graph(tmp_path, make_model(tie_word_embeddings=tied), recipe)
        sizes[tied] = (tmp_path / "model.onnx.data").stat().st_size
    matrix = 113 * 48 * (4 if recipe is FP32 else 1)
    assert sizes[False] - sizes[True] >= matrix


def test_storage_is_reported_for_every_matrix(make_model: Any, tmp_path: Path) -> None:
    facts = Graph(tmp_path, make_model(n_layer=1, n_inner=70), INT4).facts
    four, eight = Storage(4, 16), Storage(8, 16)
    large_batch = [
        "h.0.attn.c_attn",
        "h.0.attn.c_proj",
        "h.0.mlp.c_fc",
        "h.0.mlp.c_proj",
        "lm_head",
    ]
    assert facts.storage == {
        "wte": eight,
        "wpe": eight,
        "narrow/h.0.attn.c_attn": four,
        "narrow/h.0.attn.c_proj": four,
        "narrow/h.0.mlp.c_fc": four,
        "narrow/h.0.mlp.c_proj": COLUMNS,
        "narrow/lm_head": four,
        "some/lm_head": eight,
    } | {f"wide/{name}": COLUMNS for name in large_batch}
    weights = 48 * 144 + 48 * 48 + 48 * 70 + 70 * 48 + 48 * 113
    scales = 4 * (144 + 48 + 70 + 48 + 113)
    assert facts.dual_layout_bytes == weights + scales


def test_kept_matrices_have_8_bits(make_model: Any, tmp_path: Path) -> None:
    kept = frozenset({"h.1.mlp.c_proj"})
    facts = Graph(tmp_path, make_model(), INT4, kept=kept).facts
    bits = {name: storage.bits for name, storage in facts.storage.items() if "narrow/h" in name}
    assert [name for name, count in bits.items() if count == 8] == ["narrow/h.1.mlp.c_proj"]


def test_a_single_layout_graph_has_its_layers_once(make_model: Any, tmp_path: Path) -> None:
    facts = Graph(tmp_path, make_model(), replace(INT8, small_batch_rows=None)).facts
    assert facts.dual_layout_bytes == 0
    assert not [name for name in facts.storage if name.startswith((SMALL_BATCH, LARGE_BATCH))]


def run_in_chunks(served: ServedGraph, size: int) -> FloatArray:
    """Return the logits after each token, running `size` tokens at once."""
    starts = range(0, len(TOKENS), size)
    chunks: list[TokenArray] = [TOKENS[start : start + size] for start in starts]
    return np.concatenate(
        [served.extend(0, chunk, past=start) for start, chunk in zip(starts, chunks, strict=True)]
    )


def all_nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from all_nodes(attribute.g)


def expose_hidden(graph: Graph) -> None:
    """Make the input of the head an output of the graph."""
    model = onnx.load(graph.path, load_external_data=False)
    width = graph.architecture.hidden_size
    model.graph.output.append(make_value_info("hidden", np.float32, ["rows", width]))
    graph.path.write_bytes(model.SerializeToString())


def disable_activation_rounding(path: Path) -> None:
    """Set `accuracy_level` to 1, so that activations stay fp32."""
    model = onnx.load(path, load_external_data=False)
    for node in all_nodes(model.graph):
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


def round_weights(model: Any, architecture: Architecture, recipe: ProfileRecipe | None) -> None:
    """Replace every matrix by its dequantized codes.

    Without a recipe, the codes are those of columns. Rows that padding adds are zero, so the blocks
    of a padded matrix start anew at each head.
    """
    padding = -architecture.head_size % 8
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            continue
        entries = name.split(".")[-2] in {"wte", "wpe", "lm_head"}
        if entries and recipe is None:
            continue
        matrix = parameter.detach().numpy()
        matrix = matrix.T if entries else matrix
        heads = architecture.heads if name.endswith("attn.c_proj.weight") and padding else 1
        split = matrix.reshape(heads, -1, matrix.shape[1])
        padded = np.pad(split, ((0, 0), (0, padding if heads > 1 else 0), (0, 0)))
        flat = padded.reshape(-1, matrix.shape[1])
        requested = COLUMNS if recipe is None else recipe.embeddings if entries else recipe.body
        if "lm_head" in name and recipe:
            requested = recipe.head
        rounded = _rounded(flat, requested).reshape(padded.shape)
        rounded = rounded[:, : split.shape[1]].reshape(matrix.shape)
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(rounded.T if entries else rounded))


def _rounded(matrix: FloatArray, requested: Storage) -> FloatArray:
    storage = fit_storage(requested, len(matrix))
    if storage == COLUMNS:
        return quantize_columns(matrix).dequantize()
    return round_to_nearest("", matrix, storage).dequantize()
