"""The serving graph: one graph for prefill and decode, with the KV cache updated in place.

Inputs: `input_ids` and `position_ids` int64 [batch, tokens]; `seqlens_k` int32 [batch], the total
length of each row (past + new) minus one; `total_sequence_length` int32 scalar, the largest total
length; `logits_rows` int64 [rows], which of the batch · tokens positions to compute logits of; and
`past_key_values.{layer}.key` and `.value` float32 [batch, heads, capacity, head_size].

Outputs: `logits` float32 [rows, vocabulary]; `present.{layer}.key` and `.value`, to be bound to
the buffers of the past. More than one token per row goes with a batch of one only.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from gpt2flow.export.activations import find_activation
from gpt2flow.export.architecture import Architecture
from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.head_padding import PaddedHeads, padded_head_size
from gpt2flow.export.matrix_writer import MatrixWriter
from gpt2flow.export.model_writer import CONTRIB, ModelWriter, tensor_info
from gpt2flow.export.recipe import ProfileRecipe, Storage

_PARTS: Final = ("key", "value")


def write_serving_graph(
    path: Path,
    architecture: Architecture,
    weights: Mapping[str, FloatArray],
    recipe: ProfileRecipe,
    on_layer: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, Storage]:
    """Writes the serving graph of a GPT-2 and, beside it, its weights.

    Args:
        path: The file of the graph; the weights go to the same name with `.data` appended.
        architecture: The shape of the model.
        weights: Its weights, by the names of `Architecture.weight_shapes`.
        recipe: How to store them.
        on_layer: Told, after each layer, how many are done and how many there are.

    Returns:
        How the matrix of each node that has one is stored, by the name of the node.
    """
    with ModelWriter(path) as writer:
        padded = PaddedHeads(weights, architecture)
        matrices = MatrixWriter(writer, padded, recipe, tied=architecture.tie_word_embeddings)
        _ServingGraph(writer, architecture, padded, matrices).build(on_layer)
        return matrices.storage


class _ServingGraph:
    """Adds the nodes of one model to a writer."""

    def __init__(
        self,
        writer: ModelWriter,
        architecture: Architecture,
        weights: Mapping[str, FloatArray],
        matrices: MatrixWriter,
    ) -> None:
        self._writer = writer
        self._architecture = architecture
        self._weights = weights
        self._matrices = matrices
        self._activation = find_activation(architecture.activation_function)

    def build(self, on_layer: Callable[[int, int], None]) -> None:
        layers = self._architecture.layers
        tokens = self._matrices.embedding("wte", "input_ids")
        positions = self._matrices.embedding("wpe", "position_ids")
        normalised, residual = self._add_and_norm(tokens, positions, "h.0.ln_1")
        for layer in range(layers):
            normalised, residual = self._layer(layer, normalised, residual)
            on_layer(layer + 1, layers)
        self._matrices.head(normalised, "logits")
        self._writer.finish(_inputs(self._architecture), _outputs(self._architecture))

    def _layer(self, layer: int, normalised: str, residual: str) -> tuple[str, str]:
        """Adds a layer: from the outcome of its first norm to that of the norm after it."""
        name = f"h.{layer}"
        last = layer == self._architecture.layers - 1
        attended = self._attention(layer, normalised)
        if last:
            # Where no logits are wanted, all that is needed of the last layer is its cache.
            attended = self._wanted_rows(attended)
            residual = self._wanted_rows(residual)
        projected = self._matrices.linear(f"{name}.attn.c_proj", attended)
        normalised, residual = self._add_and_norm(residual, projected, f"{name}.ln_2")
        inner = self._matrices.linear(f"{name}.mlp.c_fc", normalised)
        projected = self._matrices.linear(
            f"{name}.mlp.c_proj", self._activate(f"{name}.mlp.act", inner)
        )
        return self._add_and_norm(residual, projected, "ln_f" if last else f"h.{layer + 1}.ln_1")

    def _attention(self, layer: int, normalised: str) -> str:
        name = f"h.{layer}.attn"
        qkv = self._matrices.linear(f"{name}.c_attn", normalised)
        past = [f"past_key_values.{layer}.{part}" for part in _PARTS]
        present = [f"present.{layer}.{part}" for part in _PARTS]
        return self._writer.node(
            "GroupQueryAttention",
            [qkv, "", "", *past, "seqlens_k", "total_sequence_length"],
            [f"{name}.output", *present],
            name=name,
            domain=CONTRIB,
            num_heads=self._architecture.heads,
            kv_num_heads=self._architecture.heads,
            scale=self._architecture.attention_scale(layer),
            do_rotary=0,
        )

    def _add_and_norm(self, residual: str, added: str, name: str) -> tuple[str, str]:
        """Adds two tensors; returns the layer norm of the sum, and the sum."""
        gamma = self._writer.constant(f"{name}.weight", self._weights[f"{name}.weight"])
        beta = self._writer.constant(f"{name}.bias", self._weights[f"{name}.bias"])
        outputs = [f"{name}.output", "", "", f"{name}.sum"]
        self._writer.node(
            "SkipLayerNormalization",
            [residual, added, gamma, beta],
            outputs,
            name=name,
            domain=CONTRIB,
            epsilon=self._architecture.layer_norm_epsilon,
        )
        return outputs[0], outputs[-1]

    def _activate(self, name: str, inner: str) -> str:
        kind = self._activation
        attributes = {} if kind.alpha is None else {"alpha": kind.alpha}
        return self._writer.node(
            kind.operator, [inner], [f"{name}.output"], name=name, domain=kind.domain, **attributes
        )

    def _wanted_rows(self, hidden: str) -> str:
        """Picks the positions that logits are wanted of: [rows, channels]."""
        flat = self._writer.node(
            "Flatten", [hidden], [f"{hidden}.flat"], name=f"{hidden}.flatten", axis=2
        )
        return self._writer.node(
            "Gather", [flat, "logits_rows"], [f"{hidden}.wanted"], name=f"{hidden}.gather"
        )


def _inputs(architecture: Architecture) -> list[Any]:
    grid = ["batch", "tokens"]
    return [
        tensor_info("input_ids", np.int64, grid),
        tensor_info("position_ids", np.int64, grid),
        tensor_info("seqlens_k", np.int32, ["batch"]),
        tensor_info("total_sequence_length", np.int32, []),
        tensor_info("logits_rows", np.int64, ["rows"]),
        *_cache(architecture, "past_key_values"),
    ]


def _outputs(architecture: Architecture) -> list[Any]:
    logits = tensor_info("logits", np.float32, ["rows", architecture.vocabulary_size])
    return [logits, *_cache(architecture, "present")]


def _cache(architecture: Architecture, prefix: str) -> list[Any]:
    shape: list[int | str] = [
        "batch",
        architecture.heads,
        "capacity",
        padded_head_size(architecture),
    ]
    return [
        tensor_info(f"{prefix}.{layer}.{part}", np.float32, shape)
        for layer in range(architecture.layers)
        for part in _PARTS
    ]
