"""The layers of a GPT-2 as nodes of a graph."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.checkpoint.architecture import Architecture, find_activation
from gpt2flow.export.graph.attention import AttentionWriter
from gpt2flow.export.graph.matrix_writer import MatrixWriter
from gpt2flow.export.graph.model_writer import ModelWriter
from gpt2flow.export.recipe import Storage

StorageOf = Callable[[str, int], Storage]
"""Told the name of a matrix and how many inputs it has, says how it is stored."""


@dataclass(frozen=True, slots=True)
class LayersWriter:
    """Adds all layers, from the sum of the embeddings to the last layer norm.

    Attributes:
        writer: What they are added to.
        architecture: The shape of the model.
        weights: Its weights.
        matrices: Adds what has a matrix.
        attention: Adds what has a cache.
    """

    writer: ModelWriter
    architecture: Architecture
    weights: Mapping[str, FloatArray]
    matrices: MatrixWriter
    attention: AttentionWriter

    def add(
        self, scope: str, storage_of: StorageOf, on_layer: Callable[[], None], *, few: bool
    ) -> str:
        """Add the layers.

        Args:
            scope: What the names of their nodes begin with.
            storage_of: How the matrices are stored.
            on_layer: Called after each layer.
            few: There are never many new tokens a row.

        Returns:
            The name of the outcome for the rows that logits are wanted of, [rows, channels].
        """
        return _Layers(self, scope, storage_of, few=few).add(on_layer)


class _Layers:
    """Adds the layers of one scope."""

    def __init__(
        self, shared: LayersWriter, scope: str, storage_of: StorageOf, *, few: bool
    ) -> None:
        self._writer = shared.writer
        self._architecture = shared.architecture
        self._weights = shared.weights
        self._matrices = shared.matrices
        self._attention = shared.attention
        self._scope = scope
        self._storage_of = storage_of
        self._few = few

    def add(self, on_layer: Callable[[], None]) -> str:
        normalised, residual = self._add_and_norm("wte.output", "wpe.output", "h.0.ln_1")
        for layer in range(self._architecture.layers):
            normalised, residual = self._layer(layer, normalised, residual)
            on_layer()
        return normalised

    def _layer(self, layer: int, normalised: str, residual: str) -> tuple[str, str]:
        """Add a layer: from the outcome of its first norm to that of the norm after it."""
        name = f"h.{layer}"
        last = layer == self._architecture.layers - 1
        qkv = self._linear(f"{name}.attn.c_attn", normalised)
        attended = self._attention.attend(self._scope, layer, qkv, few=self._few)
        if last:
            # Where no logits are wanted, all that is needed of the last layer is its cache.
            attended = self._wanted_rows(attended)
            residual = self._wanted_rows(residual)
        projected = self._linear(f"{name}.attn.c_proj", attended, uneven=True)
        normalised, residual = self._add_and_norm(residual, projected, f"{name}.ln_2")
        inner = self._activate(f"{name}.mlp.act", self._linear(f"{name}.mlp.c_fc", normalised))
        projected = self._linear(f"{name}.mlp.c_proj", inner, uneven=True)
        return self._add_and_norm(residual, projected, "ln_f" if last else f"h.{layer + 1}.ln_1")

    def _linear(self, name: str, hidden: str, *, uneven: bool = False) -> str:
        storage = self._storage_of(name, len(self._weights[f"{name}.weight"]))
        return self._matrices.linear(self._scope, name, hidden, storage, uneven=uneven)

    def _add_and_norm(self, residual: str, added: str, name: str) -> tuple[str, str]:
        """Add two tensors; returns the layer norm of the sum, and the sum.

        `SkipLayerNormalization` would do both, but takes 2.7 times as long for 128 rows.
        """
        gamma = self._writer.constant(f"{name}.weight", self._weights[f"{name}.weight"])
        beta = self._writer.constant(f"{name}.bias", self._weights[f"{name}.bias"])
        name = self._scope + name
        total = self._writer.node("Add", [residual, added], [f"{name}.sum"], name=f"{name}.add")
        normalised = self._writer.node(
            "LayerNormalization",
            [total, gamma, beta],
            [f"{name}.output"],
            name=name,
            axis=-1,
            epsilon=self._architecture.layer_norm_epsilon,
        )
        return normalised, total

    def _activate(self, name: str, inner: str) -> str:
        kind = find_activation(self._architecture.activation_function)
        attributes = {} if kind.alpha is None else {"alpha": kind.alpha}
        name = self._scope + name
        return self._writer.node(
            kind.operator, [inner], [f"{name}.output"], name=name, domain=kind.domain, **attributes
        )

    def _wanted_rows(self, hidden: str) -> str:
        """Pick the positions that logits are wanted of: [rows, channels]."""
        flat = self._writer.node(
            "Flatten", [hidden], [f"{hidden}.flat"], name=f"{hidden}.flatten", axis=2
        )
        return self._writer.node(
            "Gather", [flat, "logits_rows"], [f"{hidden}.wanted"], name=f"{hidden}.gather"
        )
