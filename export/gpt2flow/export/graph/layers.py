"""Layers of a GPT-2 as nodes of a graph."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.checkpoint.architecture import Architecture, find_activation
from gpt2flow.export.graph.cache import PARTS, CacheSpec, past_names, present_names
from gpt2flow.export.graph.functions import DOMAIN, attention_function
from gpt2flow.export.graph.matrix_writer import MatrixWriter
from gpt2flow.export.graph.model_writer import ModelWriter
from gpt2flow.export.recipe import StorageSelector


@dataclass(frozen=True, slots=True)
class LayersWriter:
    """Writer of all layers, from the embeddings' sum to the last residual.

    Attributes:
        writer: Writer of the model.
        architecture: Architecture of the model.
        weights: Weights of the model, heads padded.
        matrices: Writer of the nodes that have a matrix.
        cache: Layout of the KV cache.
    """

    writer: ModelWriter
    architecture: Architecture
    weights: Mapping[str, FloatArray]
    matrices: MatrixWriter
    cache: CacheSpec

    def add(
        self, select_storage: StorageSelector, report_progress: Callable[[int, int], None]
    ) -> str:
        """Add the layers.

        Args:
            select_storage: Function that selects the storage format of each matrix.
            report_progress: Progress callback, called after each layer with the layers done and in
                total.

        Returns:
            Name of the residual stream after the last layer, [rows, channels]. Its rows are the
            tokens selected by the input `logits_rows`.
        """
        self.writer.add_function(attention_function(int8_cache=self.cache.scales is not None))
        hidden = self.writer.add_node(
            "Add", ["wte.output", "wpe.output"], ["embeddings"], name="embeddings"
        )
        for layer in range(self.architecture.layers):
            hidden = self._add_layer(layer, hidden, select_storage)
            report_progress(layer + 1, self.architecture.layers)
        return hidden

    def _add_layer(self, layer: int, hidden: str, select_storage: StorageSelector) -> str:
        """Add a layer, and return the name of its sum."""

        def add_linear(part: str, rows: str, **around: Any) -> str:
            matrix = f"{name}.{part}"
            storage = select_storage(matrix, len(self.weights[f"{matrix}.weight"]))
            return self.matrices.add_linear(matrix, rows, storage, **around)

        name = f"h.{layer}"
        qkv = add_linear("attn.c_attn", hidden, norm=f"{name}.ln_1")
        attended = self._add_attention(layer, qkv)
        if layer == self.architecture.layers - 1:
            # Tokens without logits only need the last layer's keys and values.
            attended = self._select_logits_rows(attended)
            hidden = self._select_logits_rows(hidden)
        hidden = add_linear("attn.c_proj", attended, residual=hidden)
        activation = find_activation(self.architecture.activation_function)
        inner = add_linear("mlp.c_fc", hidden, norm=f"{name}.ln_2", activation=activation)
        return add_linear("mlp.c_proj", inner, residual=hidden)

    def _add_attention(self, layer: int, qkv: str) -> str:
        """Add the attention of a layer, which updates its cache.

        Args:
            layer: Index of the layer, counted from 0.
            qkv: Queries, keys and values of the new tokens, [tokens, 3 · channels].

        Returns:
            Name of the output, [tokens, channels].
        """
        name = f"h.{layer}.attn"
        inputs = [qkv, "slots", "positions", *past_names(layer)]
        for part in PARTS if self.cache.scales else ():
            scales = self.cache.scales_of(layer, part)
            inputs.append(self.writer.add_constant(f"{name}.{part}_scales", scales))
        return self.writer.add_node(
            "RaggedAttention",
            inputs,
            [f"{name}.output", *present_names(layer)],
            name=name,
            domain=DOMAIN,
            num_heads=self.architecture.heads,
            scale=self.architecture.attention_scale(layer),
        )

    def _select_logits_rows(self, hidden: str) -> str:
        """Gather the tokens that need logits, [rows, channels]."""
        return self.writer.add_node(
            "Gather", [hidden, "logits_rows"], [f"{hidden}.wanted"], name=f"{hidden}.gather"
        )
