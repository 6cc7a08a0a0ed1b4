"""Serving graph for both prefill and decode, with an in-place KV cache.

Inputs:
    input_ids: int64 [batch, tokens], the new tokens. More than one token per row requires a
        batch of one.
    position_ids: int64 [batch, tokens], their positions.
    seqlens_k: int32 [batch], the total length (past + new) of each row, minus one.
    total_sequence_length: int32 scalar, the largest total length.
    logits_rows: int64 [rows], the positions to compute logits for, as indices into
        batch · tokens.
    logits_ids: int64 [ids], the token ids to restrict the logits to; empty for the whole
        vocabulary.
    past_key_values.{layer}.key and .value: float32 or int8
        [batch, heads, capacity, head_size], the KV cache.

Outputs:
    logits: float32 [rows, ids or vocabulary].
    logsumexp: float32 [rows], the logarithm of the summed exponentials of a row's logits.
        Subtracting it from a logit yields the log-probability.
    present.{layer}.key and .value: The updated cache, to be bound to the buffers of the past.

The size of the vocabulary is in the metadata of the model.

No quantized operator is fast for both small and large batches. Quantized graphs therefore have a
dual weight layout. Layers and head exist twice, and `If` nodes select one of them by the number
of rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.graph.attention import AttentionWriter
from gpt2flow.export.graph.cache import CacheScales, CacheSpec
from gpt2flow.export.graph.head_padding import PaddedHeads
from gpt2flow.export.graph.layers import LayersWriter
from gpt2flow.export.graph.matrix_writer import MatrixWriter
from gpt2flow.export.graph.model_writer import ModelWriter, make_value_info
from gpt2flow.export.quantization.rounding import Quantizer, round_to_nearest
from gpt2flow.export.recipe import COLUMNS, ProfileRecipe, Storage, StorageSelector, fit_storage

SMALL_BATCH: Final = "narrow/"
"""Prefix of the names of small-batch nodes in a graph with a dual weight layout."""

LARGE_BATCH: Final = "wide/"
"""Prefix of the names of large-batch nodes in a graph with a dual weight layout."""

RESTRICTED: Final = "some/"
"""Prefix of the names of nodes that compute restricted logits."""

_MIXED_PRECISION_BITS: Final = 8


def write_serving_graph(
    path: Path,
    architecture: Architecture,
    weights: Mapping[str, FloatArray],
    recipe: ProfileRecipe,
    *,
    kept: frozenset[str] = frozenset(),
    quantizer: Quantizer = round_to_nearest,
    cache_scales: CacheScales | None = None,
    on_layer: Callable[[int, int], None] = lambda _done, _total: None,
) -> "GraphFacts":
    """Write the serving graph of a GPT-2 and, beside it, its weights.

    Args:
        path: File of the graph; the weights go to the same name with `.data` appended.
        architecture: Architecture of the model.
        weights: Weights, by the names of `Architecture.weight_shapes`.
        recipe: Storage formats of the weights. Its `kv_cache` is ignored; see `cache_scales`.
        kept: Names of the layers' matrices that keep at least 8 bits (mixed precision).
        quantizer: Function that quantizes a matrix, its heads padded, in blocks.
        cache_scales: Scales of an int8 KV cache; None means a float32 cache.
        on_layer: Progress callback, called after each layer with the layers done and in total.

    Returns:
        The storage of the weights.
    """
    with ModelWriter(path) as writer:
        padded = PaddedHeads(weights, architecture)
        graph = _ServingGraph(
            writer,
            architecture,
            padded,
            MatrixWriter(writer, padded, quantizer, tied=architecture.tie_word_embeddings),
            CacheSpec(architecture, cache_scales),
        )
        return graph.build(recipe, kept, on_layer)


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """Storage of the weights in a graph.

    Attributes:
        storage: Storage format of each node's matrix, by the name of the node.
        dual_layout_bytes: Size in bytes of the large-batch layout that the graph has in addition
            to the small-batch one.
    """

    storage: dict[str, Storage]
    dual_layout_bytes: int


def small_batch_storage(
    recipe: ProfileRecipe, kept: frozenset[str], name: str, inputs: int
) -> Storage:
    """Return the storage format of a matrix in the small-batch layout.

    Args:
        recipe: Recipe of the graph.
        kept: Names of the matrices that keep at least 8 bits.
        name: Name of a matrix of the layers, or `lm_head`.
        inputs: Number of inputs of the matrix.
    """
    requested = recipe.head if name == "lm_head" else recipe.body
    if name in kept:
        requested = Storage(max(requested.bits, _MIXED_PRECISION_BITS), requested.block_size)
    return fit_storage(requested, inputs)


class _ServingGraph:
    """Builder of the nodes of one model."""

    def __init__(
        self,
        writer: ModelWriter,
        architecture: Architecture,
        weights: Mapping[str, FloatArray],
        matrices: MatrixWriter,
        cache: CacheSpec,
    ) -> None:
        self._writer = writer
        self._architecture = architecture
        self._matrices = matrices
        self._cache = cache
        attention = AttentionWriter(writer, cache)
        self._layers = LayersWriter(writer, architecture, weights, matrices, attention)

    def build(
        self, recipe: ProfileRecipe, kept: frozenset[str], on_layer: Callable[[int, int], None]
    ) -> "GraphFacts":
        """Add all nodes, and return the storage of the weights."""
        embeddings = fit_storage(recipe.embeddings, self._architecture.hidden_size)
        head = fit_storage(recipe.head, self._architecture.hidden_size)
        self._matrices.add_embedding("wte", "input_ids", embeddings)
        self._matrices.add_embedding("wpe", "position_ids", embeddings)
        count_layer = _LayerProgress(
            self._architecture.layers * (2 if recipe.small_batch_rows else 1), on_layer
        )

        def body(name: str, inputs: int) -> Storage:
            return small_batch_storage(recipe, kept, name, inputs)

        if recipe.small_batch_rows is None:
            hidden = self._layers.add("", body, count_layer, small_batch=False)
            self._add_logits(
                hidden, embeddings, lambda output: self._matrices.add_head("", hidden, output, head)
            )
        else:
            limit = self._writer.add_constant("narrow_rows", np.array(recipe.small_batch_rows))
            self._add_layers_by_batch_size(limit, body, count_layer)
            self._add_logits(
                "hidden",
                embeddings,
                lambda output: self._add_head_by_batch_size(limit, head, output),
            )
        metadata = {"vocabulary_size": str(self._architecture.vocabulary_size)}
        self._writer.finish(self._inputs(), self._outputs(), metadata)
        column_bytes = sum(self._matrices.column_bytes.values())
        dual_layout = recipe.small_batch_rows and embeddings != COLUMNS
        return GraphFacts(self._matrices.storage, column_bytes if dual_layout else 0)

    def _add_layers_by_batch_size(
        self, limit: str, body: StorageSelector, count_layer: Callable[[], None]
    ) -> None:
        """Add both layouts of the layers, and an `If` that selects one.

        The output is named `hidden`.
        """
        branches = {}
        for field, scope, select_storage in (
            ("then_branch", SMALL_BATCH, body),
            ("else_branch", LARGE_BATCH, lambda _name, _inputs: COLUMNS),
        ):
            with self._writer.subgraph(f"{scope}layers", []) as graph:
                hidden = self._layers.add(
                    scope, select_storage, count_layer, small_batch=scope == SMALL_BATCH
                )
            width = self._architecture.hidden_size
            graph.output.append(make_value_info(hidden, np.float32, ["rows", width]))
            graph.output.extend(self._cache.present_value_infos(scope))
            branches[field] = graph
        present = [info.name for info in self._cache.present_value_infos("")]
        is_small = self._add_size_check("input_ids", limit)
        self._writer.add_node("If", [is_small], ["hidden", *present], name="layers", **branches)

    def _add_logits(
        self, hidden: str, embeddings: Storage, add_full_head: Callable[[str], str]
    ) -> None:
        """Add full and restricted logits, and an `If` that selects one.

        Args:
            hidden: Name of the input, [rows, channels].
            embeddings: Storage format of the embeddings.
            add_full_head: Function that adds the head for the whole vocabulary. It receives the
                name of the output to create.
        """
        restricted, full = self._logits("some/logits"), self._logits("all/logits")
        with self._writer.subgraph("some", [restricted]) as restricted_graph:
            self._matrices.add_restricted_head(
                RESTRICTED, hidden, "logits_ids", restricted.name, embeddings
            )
        with self._writer.subgraph("all", [full]) as full_graph:
            add_full_head(full.name)
        zero = self._writer.add_constant("no_ids", np.array(0))
        unrestricted = self._add_size_check("logits_ids", zero)
        branches = {"then_branch": full_graph, "else_branch": restricted_graph}
        self._writer.add_node("If", [unrestricted], ["logits"], name="logits", **branches)
        self._add_logsumexp()

    def _add_logsumexp(self) -> None:
        """Add `logsumexp`, the difference of logits and log-probabilities."""
        # `ReduceLogSumExp` is twelve times slower.
        self._writer.add_node("LogSoftmax", ["logits"], ["logprobs"], name="logprobs", axis=-1)
        first = self._writer.add_constant("first_column", np.array(0))
        columns = []
        for values in ("logits", "logprobs"):
            name = f"{values}.first"
            columns.append(
                self._writer.add_node("Gather", [values, first], [name], name=name, axis=1)
            )
        self._writer.add_node("Sub", columns, ["logsumexp"], name="logsumexp")

    def _add_head_by_batch_size(self, limit: str, small_batch: Storage, output: str) -> str:
        """Add both layouts of the head, and an `If` that selects one.

        Returns:
            The name of the output.
        """
        branches = {}
        for field, scope, storage in (
            ("then_branch", SMALL_BATCH, small_batch),
            ("else_branch", LARGE_BATCH, COLUMNS),
        ):
            logits = self._logits(f"{scope}logits")
            name = f"{scope}head"
            with self._writer.subgraph(name, [logits], own_constants=True) as branches[field]:
                self._matrices.add_head(scope, "hidden", logits.name, storage)
        is_small = self._add_size_check("logits_rows", limit)
        return self._writer.add_node("If", [is_small], [output], name="head", **branches)

    def _add_size_check(self, name: str, limit: str) -> str:
        """Add a boolean: whether a tensor has at most `limit` elements."""
        size = self._writer.add_node("Size", [name], [f"{name}.size"], name=f"{name}.size")
        return self._writer.add_node(
            "LessOrEqual", [size, limit], [f"{name}.few"], name=f"{name}.few"
        )

    def _inputs(self) -> list[Any]:
        shape = ["batch", "tokens"]
        return [
            make_value_info("input_ids", np.int64, shape),
            make_value_info("position_ids", np.int64, shape),
            make_value_info("seqlens_k", np.int32, ["batch"]),
            make_value_info("total_sequence_length", np.int32, []),
            make_value_info("logits_rows", np.int64, ["rows"]),
            make_value_info("logits_ids", np.int64, ["ids"]),
            *self._cache.past_value_infos(),
        ]

    def _outputs(self) -> list[Any]:
        rows = make_value_info("logsumexp", np.float32, ["rows"])
        return [self._logits("logits"), rows, *self._cache.present_value_infos("")]

    def _logits(self, name: str) -> Any:
        return make_value_info(name, np.float32, ["rows", "ids or vocabulary"])


class _LayerProgress:
    """Callable that counts layers and reports the count to a progress callback."""

    def __init__(self, total: int, report_progress: Callable[[int, int], None]) -> None:
        self._done = 0
        self._total = total
        self._report_progress = report_progress

    def __call__(self) -> None:
        self._done += 1
        self._report_progress(self._done, self._total)
