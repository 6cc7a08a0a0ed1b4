"""The serving graph: one graph for prefill and decode, with the KV cache updated in place.

Inputs: `input_ids` and `position_ids` int64 [batch, tokens]; `seqlens_k` int32 [batch], the total
length of each row (past + new) minus one; `total_sequence_length` int32 scalar, the largest total
length; `logits_rows` int64 [rows], which of the batch · tokens positions to compute logits of;
`logits_ids` int64 [ids], of which tokens, none meaning all; and
`past_key_values.{layer}.key` and `.value` float32 or int8 [batch, heads, capacity, head_size].

Outputs: `logits` float32 [rows, ids or vocabulary]; `logsumexp` float32 [rows], the logarithm of
the sum of the exponentials of a row's logits, which turns each of them into a log-probability;
`present.{layer}.key` and `.value`, to be bound
to the buffers of the past. More than one token per row goes with a batch of one only. The metadata
of the model say how large the vocabulary is.

Where an operator is fast for few rows and another one for many, the layers are there twice, and
so is the head: the graph takes the narrow or the wide one by the number of rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.graph.attention import AttentionWriter
from gpt2flow.export.graph.cache import Cache, CacheScales
from gpt2flow.export.graph.head_padding import PaddedHeads
from gpt2flow.export.graph.layers import LayersWriter
from gpt2flow.export.graph.matrix_writer import MatrixWriter
from gpt2flow.export.graph.model_writer import ModelWriter, tensor_info
from gpt2flow.export.quantization.rounding import Quantizer, round_to_nearest
from gpt2flow.export.recipe import COLUMNS, ProfileRecipe, Storage, fitting

NARROW: Final = "narrow/"
"""What the names of nodes begin with that few rows go through, where many have others."""

WIDE: Final = "wide/"
"""What the names of nodes begin with that many rows go through, where few have others."""

SOME: Final = "some/"
"""What the names of the nodes begin with that compute the logits of some tokens only."""

_KEPT_BITS: Final = 8


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
        path: The file of the graph; the weights go to the same name with `.data` appended.
        architecture: The shape of the model.
        weights: Its weights, by the names of `Architecture.weight_shapes`.
        recipe: How to store them; of its KV cache, `cache_scales` decides.
        kept: Names of matrices of the layers that have 8 bits whatever the recipe says.
        quantizer: Makes the blocks of matrices, whose heads are padded.
        cache_scales: Those of an int8 KV cache; None: it is float32.
        on_layer: Told, after each layer, how many are done and how many there are.

    Returns:
        How the weights are stored.
    """
    with ModelWriter(path) as writer:
        padded = PaddedHeads(weights, architecture)
        graph = _ServingGraph(
            writer,
            architecture,
            padded,
            MatrixWriter(writer, padded, quantizer, tied=architecture.tie_word_embeddings),
            Cache(architecture, cache_scales),
        )
        return graph.build(recipe, kept, on_layer)


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """How the weights of a graph are stored.

    Attributes:
        storage: How the matrix of each node that has one is stored, by the name of the node.
        second_copy_bytes: What it takes to have matrices for many rows beside those for few.
    """

    storage: dict[str, Storage]
    second_copy_bytes: int


def storage_for_few(recipe: ProfileRecipe, kept: frozenset[str], name: str, inputs: int) -> Storage:
    """Return how a matrix of the layers, or the head, is stored for few rows."""
    wanted = recipe.head if name == "lm_head" else recipe.body
    if name in kept:
        wanted = Storage(max(wanted.bits, _KEPT_BITS), wanted.block_size)
    return fitting(wanted, inputs)


class _ServingGraph:
    """Adds the nodes of one model to a writer."""

    def __init__(
        self,
        writer: ModelWriter,
        architecture: Architecture,
        weights: Mapping[str, FloatArray],
        matrices: MatrixWriter,
        cache: Cache,
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
        """Add all of it; returns how the weights are stored."""
        entries = fitting(recipe.entries, self._architecture.hidden_size)
        head = fitting(recipe.head, self._architecture.hidden_size)
        self._matrices.embedding("wte", "input_ids", entries)
        self._matrices.embedding("wpe", "position_ids", entries)
        count = _Count(self._architecture.layers * (2 if recipe.narrow_rows else 1), on_layer)

        def body(name: str, inputs: int) -> Storage:
            return storage_for_few(recipe, kept, name, inputs)

        if recipe.narrow_rows is None:
            hidden = self._layers.add("", body, count, few=False)
            self._choose_tokens(
                hidden, entries, lambda output: self._matrices.head("", hidden, output, head)
            )
        else:
            limit = self._writer.constant("narrow_rows", np.array(recipe.narrow_rows))
            self._choose_layers(limit, body, count)
            self._choose_tokens(
                "hidden", entries, lambda output: self._choose_head(limit, head, output)
            )
        facts = {"vocabulary_size": str(self._architecture.vocabulary_size)}
        self._writer.finish(self._inputs(), self._outputs(), facts)
        in_columns = self._matrices.column_bytes.values()
        twice = sum(in_columns) if recipe.narrow_rows and entries != COLUMNS else 0
        return GraphFacts(self._matrices.storage, twice)

    def _choose_layers(
        self, limit: str, body: Callable[[str, int], Storage], count: Callable[[], None]
    ) -> None:
        """Add both kinds of layers and the choice between them; the outcome is `hidden`."""
        branches = {}
        for field, scope, storage_of in (
            ("then_branch", NARROW, body),
            ("else_branch", WIDE, lambda _name, _inputs: COLUMNS),
        ):
            with self._writer.branch(f"{scope}layers", []) as graph:
                hidden = self._layers.add(scope, storage_of, count, few=scope == NARROW)
            width = self._architecture.hidden_size
            graph.output.append(tensor_info(hidden, np.float32, ["rows", width]))
            graph.output.extend(self._cache.present_infos(scope))
            branches[field] = graph
        present = [info.name for info in self._cache.present_infos("")]
        few = self._at_most("input_ids", limit)
        self._writer.node("If", [few], ["hidden", *present], name="layers", **branches)

    def _choose_tokens(self, hidden: str, entries: Storage, add_all: Callable[[str], str]) -> None:
        """Add the logits of some tokens, those of all, and the choice between them.

        Args:
            hidden: [rows, channels].
            entries: How embeddings are stored.
            add_all: Adds the nodes for all tokens, whose outcome is to have the given name.
        """
        some, everything = self._logits("some/logits"), self._logits("all/logits")
        with self._writer.branch("some", [some]) as for_some:
            self._matrices.head_of_some(SOME, hidden, "logits_ids", some.name, entries)
        with self._writer.branch("all", [everything]) as for_all:
            add_all(everything.name)
        none = self._at_most("logits_ids", self._writer.constant("no_ids", np.array(0)))
        branches = {"then_branch": for_all, "else_branch": for_some}
        self._writer.node("If", [none], ["logits"], name="logits", **branches)
        self._sum_up()

    def _sum_up(self) -> None:
        """Add `logsumexp`: by how much the logits of a row exceed the log-probabilities."""
        # ReduceLogSumExp is twelve times slower.
        self._writer.node("LogSoftmax", ["logits"], ["logprobs"], name="logprobs", axis=-1)
        first = self._writer.constant("first_column", np.array(0))
        columns = []
        for values in ("logits", "logprobs"):
            name = f"{values}.first"
            columns.append(self._writer.node("Gather", [values, first], [name], name=name, axis=1))
        self._writer.node("Sub", columns, ["logsumexp"], name="logsumexp")

    def _choose_head(self, limit: str, few: Storage, output: str) -> str:
        """Add both kinds of the head and the choice between them; returns the outcome."""
        branches = {}
        for field, scope, storage in (
            ("then_branch", NARROW, few),
            ("else_branch", WIDE, COLUMNS),
        ):
            logits = self._logits(f"{scope}logits")
            name = f"{scope}head"
            with self._writer.branch(name, [logits], own_constants=True) as branches[field]:
                self._matrices.head(scope, "hidden", logits.name, storage)
        at_most = self._at_most("logits_rows", limit)
        return self._writer.node("If", [at_most], [output], name="head", **branches)

    def _at_most(self, name: str, limit: str) -> str:
        """Add whether a tensor has at most so many elements."""
        size = self._writer.node("Size", [name], [f"{name}.size"], name=f"{name}.size")
        return self._writer.node("LessOrEqual", [size, limit], [f"{name}.few"], name=f"{name}.few")

    def _inputs(self) -> list[Any]:
        grid = ["batch", "tokens"]
        return [
            tensor_info("input_ids", np.int64, grid),
            tensor_info("position_ids", np.int64, grid),
            tensor_info("seqlens_k", np.int32, ["batch"]),
            tensor_info("total_sequence_length", np.int32, []),
            tensor_info("logits_rows", np.int64, ["rows"]),
            tensor_info("logits_ids", np.int64, ["ids"]),
            *self._cache.past_infos(),
        ]

    def _outputs(self) -> list[Any]:
        rows = tensor_info("logsumexp", np.float32, ["rows"])
        return [self._logits("logits"), rows, *self._cache.present_infos("")]

    def _logits(self, name: str) -> Any:
        return tensor_info(name, np.float32, ["rows", "ids or vocabulary"])


class _Count:
    """Counts calls, and tells how many of how many there were."""

    def __init__(self, total: int, tell: Callable[[int, int], None]) -> None:
        self._done = 0
        self._total = total
        self._tell = tell

    def __call__(self) -> None:
        self._done += 1
        self._tell(self._done, self._total)
