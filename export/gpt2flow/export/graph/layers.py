"""Layers of a GPT-2 as nodes of a graph."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.checkpoint.architecture import Architecture, find_activation
from gpt2flow.export.graph.cache import PARTS, CacheSpec, past_names, present_names
from gpt2flow.export.graph.functions import DOMAIN, attention_function
from gpt2flow.export.graph.matrix_writer import MatrixWriter
from gpt2flow.export.graph.model_writer import ModelWriter
from gpt2flow.export.recipe import StorageSelector


@dataclass(frozen=True, slots=True)
class LayersWriter:
    """Writer of all layers, from the embeddings' sum to the final norm.

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
            Name of the output of the final norm, [rows, channels]. Its rows are the tokens
            selected by the input `logits_rows`.
        """
        self.writer.add_function(attention_function(int8_cache=self.cache.scales is not None))
        normalized, residual = self._add_and_norm("wte.output", "wpe.output", "h.0.ln_1")
        for layer in range(self.architecture.layers):
            normalized, residual = self._add_layer(layer, normalized, residual, select_storage)
            report_progress(layer + 1, self.architecture.layers)
        return normalized

    def _add_layer(
        self, layer: int, normalized: str, residual: str, select_storage: StorageSelector
    ) -> tuple[str, str]:
        """Add a layer, starting from the output of its first norm.

        Returns:
            Names of the output of the next layer's first norm and of the residual stream. After the
            last layer, the norm is the final one.
        """

        def add_linear(part: str, hidden: str) -> str:
            matrix = f"{name}.{part}"
            storage = select_storage(matrix, len(self.weights[f"{matrix}.weight"]))
            return self.matrices.add_linear(matrix, hidden, storage)

        name = f"h.{layer}"
        last = layer == self.architecture.layers - 1
        attended = self._add_attention(layer, add_linear("attn.c_attn", normalized))
        if last:
            # Tokens without logits only need the last layer's keys and values.
            attended = self._select_logits_rows(attended)
            residual = self._select_logits_rows(residual)
        projected = add_linear("attn.c_proj", attended)
        normalized, residual = self._add_and_norm(residual, projected, f"{name}.ln_2")
        inner = self._add_activation(f"{name}.mlp.act", add_linear("mlp.c_fc", normalized))
        projected = add_linear("mlp.c_proj", inner)
        return self._add_and_norm(residual, projected, "ln_f" if last else f"h.{layer + 1}.ln_1")

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

    def _add_and_norm(self, residual: str, added: str, name: str) -> tuple[str, str]:
        """Add two tensors and normalize the sum.

        `SkipLayerNormalization` would do both, but takes 2.7 times as long for 128 rows.

        Returns:
            Names of the normalized sum and of the sum.
        """
        gamma = self.writer.add_constant(f"{name}.weight", self.weights[f"{name}.weight"])
        beta = self.writer.add_constant(f"{name}.bias", self.weights[f"{name}.bias"])
        total = self.writer.add_node("Add", [residual, added], [f"{name}.sum"], name=f"{name}.add")
        normalized = self.writer.add_node(
            "LayerNormalization",
            [total, gamma, beta],
            [f"{name}.output"],
            name=name,
            axis=-1,
            epsilon=self.architecture.layer_norm_epsilon,
        )
        return normalized, total

    def _add_activation(self, name: str, inner: str) -> str:
        kind = find_activation(self.architecture.activation_function)
        attributes = {} if kind.alpha is None else {"alpha": kind.alpha}
        return self.writer.add_node(
            kind.operator, [inner], [f"{name}.output"], name=name, domain=kind.domain, **attributes
        )

    def _select_logits_rows(self, hidden: str) -> str:
        """Gather the tokens that need logits, [rows, channels]."""
        return self.writer.add_node(
            "Gather", [hidden, "logits_rows"], [f"{hidden}.wanted"], name=f"{hidden}.gather"
        )
