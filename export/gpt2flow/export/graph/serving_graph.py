"""Serving graph for any mix of new tokens, with a KV cache.

The cache is updated in place.

Inputs:
    input_ids: int64 [tokens], the new tokens.
    slots: int64 [tokens], the slot of each token's sequence in the cache.
    positions: int64 [tokens], the position of each token in its sequence.
    logits_rows: int64 [rows], indices of the tokens to compute logits for.
    logit_ids: int64 [ids], the token ids to restrict the logits to; empty for the whole
        vocabulary.
    past_key_values.{layer}.key and .value: float32 or int8, the KV cache: keys
        [slots, heads, capacity / 16, head_size / n, 16, n], where n is 2 for int8 and 1 for
        float32, and values [slots, heads, capacity, head_size].

Outputs:
    logits: float32 [rows, ids or vocabulary].
    present.{layer}.key and .value: The updated cache, to be bound to the buffers of the past.

A token attends to the positions of its slot up to its own, whether they were filled by an earlier
run or by this one. The size of the vocabulary is in the metadata of the model.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.graph.cache import CacheScales, CacheSpec
from gpt2flow.export.graph.head_padding import PaddedHeads
from gpt2flow.export.graph.layers import LayersWriter
from gpt2flow.export.graph.matrix_writer import MatrixWriter
from gpt2flow.export.graph.model_writer import ModelWriter, make_value_info
from gpt2flow.export.quantization.rounding import Quantizer, round_to_nearest
from gpt2flow.export.recipe import FP32_STORAGE, ProfileRecipe, Storage, fit_storage

_MIXED_PRECISION_BITS: Final = 8
_FINAL_NORM: Final = "ln_f"


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
) -> dict[str, Storage]:
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
        Storage format of each node's matrix, by the name of the node.
    """
    with ModelWriter(path) as writer:
        padded = PaddedHeads(weights, architecture)
        matrices = MatrixWriter(
            writer,
            padded,
            quantizer,
            tied=architecture.tie_word_embeddings,
            epsilon=architecture.layer_norm_epsilon,
        )
        cache = CacheSpec(architecture, cache_scales)
        layers = LayersWriter(writer, architecture, padded, matrices, cache)

        def body(name: str, inputs: int) -> Storage:
            return select_storage(recipe, kept, name, inputs)

        embeddings = fit_storage(recipe.embeddings, architecture.hidden_size)
        matrices.add_embedding("wte", "input_ids", embeddings)
        matrices.add_embedding("wpe", "positions", embeddings)
        hidden = layers.add(body, on_layer)
        _add_logits(writer, matrices, hidden, body("lm_head", architecture.hidden_size))
        metadata = {"vocabulary_size": str(architecture.vocabulary_size)}
        writer.finish(_inputs(cache), _outputs(cache), metadata)
        return matrices.storage


def select_storage(recipe: ProfileRecipe, kept: frozenset[str], name: str, inputs: int) -> Storage:
    """Return the storage format of a matrix.

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


def _add_logits(writer: ModelWriter, matrices: MatrixWriter, hidden: str, storage: Storage) -> None:
    """Add the logits of all token ids, or of those in `logit_ids`."""
    if storage != FP32_STORAGE:
        matrices.add_head(hidden, _FINAL_NORM, "logit_ids", "logits", storage)
        return
    branches = {}
    for field, restricted in (("then_branch", False), ("else_branch", True)):
        output = "restricted/logits" if restricted else "all/logits"
        with writer.subgraph(output, [_logits(output)]) as branches[field]:
            matrices.add_float_head(hidden, _FINAL_NORM, "logit_ids", output, restricted=restricted)
    none = writer.add_constant("no_ids", np.array(0))
    count = writer.add_node("Size", ["logit_ids"], ["id_count"], name="id_count")
    every = writer.add_node("Equal", [count, none], ["every_id"], name="every_id")
    writer.add_node("If", [every], ["logits"], name="logits", **branches)


def _inputs(cache: CacheSpec) -> list[Any]:
    return [
        *(make_value_info(name, np.int64, ["tokens"]) for name in ("input_ids", "slots")),
        make_value_info("positions", np.int64, ["tokens"]),
        make_value_info("logits_rows", np.int64, ["rows"]),
        make_value_info("logit_ids", np.int64, ["ids"]),
        *cache.past_value_infos(),
    ]


def _outputs(cache: CacheSpec) -> list[Any]:
    return [_logits("logits"), *cache.present_value_infos()]


def _logits(name: str) -> Any:
    return make_value_info(name, np.float32, ["rows", "ids or vocabulary"])
