"""Layers of a GPT-2 as nodes of a graph."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.checkpoint.architecture import Architecture, find_activation
from gpt2flow.export.graph.attention import AttentionWriter
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
        attention: Writer of the nodes that have a cache.
    """

    writer: ModelWriter
    architecture: Architecture
    weights: Mapping[str, FloatArray]
    matrices: MatrixWriter
    attention: AttentionWriter

    def add(
        self,
        scope: str,
        select_storage: StorageSelector,
        on_layer: Callable[[], None],
        *,
        small_batch: bool,
    ) -> str:
        """Add the layers.

        Args:
            scope: Prefix of the names of their nodes.
            select_storage: Function that selects the storage format of each matrix.
            on_layer: Callback after each layer.
            small_batch: Whether the scope only runs for small batches.

        Returns:
            Name of the output of the final norm, [rows, channels]. Its rows are the positions
            selected by the input `logits_rows`.
        """
        return _Layers(self, scope, select_storage, small_batch=small_batch).add(on_layer)


class _Layers:
    """Writer of the layers of one scope."""

    def __init__(
        self,
        shared: LayersWriter,
        scope: str,
        select_storage: StorageSelector,
        *,
        small_batch: bool,
    ) -> None:
        self._writer = shared.writer
        self._architecture = shared.architecture
        self._weights = shared.weights
        self._matrices = shared.matrices
        self._attention = shared.attention
        self._scope = scope
        self._select_storage = select_storage
        self._small_batch = small_batch

    def add(self, on_layer: Callable[[], None]) -> str:
        normalized, residual = self._add_and_norm("wte.output", "wpe.output", "h.0.ln_1")
        for layer in range(self._architecture.layers):
            normalized, residual = self._add_layer(layer, normalized, residual)
            on_layer()
        return normalized

    def _add_layer(self, layer: int, normalized: str, residual: str) -> tuple[str, str]:
        """Add a layer, starting from the output of its first norm.

        Returns:
            Names of the output of the next layer's first norm and of the residual stream. After the
            last layer, the norm is the final one.
        """
        name = f"h.{layer}"
        last = layer == self._architecture.layers - 1
        qkv = self._add_linear(f"{name}.attn.c_attn", normalized)
        attended = self._attention.add_attention(
            self._scope, layer, qkv, small_batch=self._small_batch
        )
        if last:
            # Positions without logits only need the last layer's keys and values.
            attended = self._select_logits_rows(attended)
            residual = self._select_logits_rows(residual)
        projected = self._add_linear(f"{name}.attn.c_proj", attended, normalize_rows=True)
        normalized, residual = self._add_and_norm(residual, projected, f"{name}.ln_2")
        inner = self._add_activation(
            f"{name}.mlp.act", self._add_linear(f"{name}.mlp.c_fc", normalized)
        )
        projected = self._add_linear(f"{name}.mlp.c_proj", inner, normalize_rows=True)
        return self._add_and_norm(residual, projected, "ln_f" if last else f"h.{layer + 1}.ln_1")

    def _add_linear(self, name: str, hidden: str, *, normalize_rows: bool = False) -> str:
        storage = self._select_storage(name, len(self._weights[f"{name}.weight"]))
        return self._matrices.add_linear(
            self._scope, name, hidden, storage, normalize_rows=normalize_rows
        )

    def _add_and_norm(self, residual: str, added: str, name: str) -> tuple[str, str]:
        """Add two tensors and normalize the sum.

        `SkipLayerNormalization` would do both, but takes 2.7 times as long for 128 rows.

        Returns:
            Names of the normalized sum and of the sum.
        """
        gamma = self._writer.add_constant(f"{name}.weight", self._weights[f"{name}.weight"])
        beta = self._writer.add_constant(f"{name}.bias", self._weights[f"{name}.bias"])
        name = self._scope + name
        total = self._writer.add_node("Add", [residual, added], [f"{name}.sum"], name=f"{name}.add")
        normalized = self._writer.add_node(
            "LayerNormalization",
            [total, gamma, beta],
            [f"{name}.output"],
            name=name,
            axis=-1,
            epsilon=self._architecture.layer_norm_epsilon,
        )
        return normalized, total

    def _add_activation(self, name: str, inner: str) -> str:
        kind = find_activation(self._architecture.activation_function)
        attributes = {} if kind.alpha is None else {"alpha": kind.alpha}
        name = self._scope + name
        return self._writer.add_node(
            kind.operator, [inner], [f"{name}.output"], name=name, domain=kind.domain, **attributes
        )

    def _select_logits_rows(self, hidden: str) -> str:
        """Gather the positions that need logits, [rows, channels]."""
        flat = self._writer.add_node(
            "Flatten", [hidden], [f"{hidden}.flat"], name=f"{hidden}.flatten", axis=2
        )
        return self._writer.add_node(
            "Gather", [flat, "logits_rows"], [f"{hidden}.wanted"], name=f"{hidden}.gather"
        )
