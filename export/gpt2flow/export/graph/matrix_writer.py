"""Writer of the nodes that have a matrix, in any storage format."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.checkpoint.architecture import Activation
from gpt2flow.export.graph.functions import DOMAIN, Product, product_function
from gpt2flow.export.graph.model_writer import CONTRIB, ModelWriter
from gpt2flow.export.graph.packed_matrix import pack_matrix
from gpt2flow.export.quantization.rounding import Quantizer, round_to_nearest
from gpt2flow.export.recipe import FP32_STORAGE, Storage

_HEAD: Final = "lm_head"
# The activation that a product can be fused with.
_FUSED: Final = Activation("FastGelu")


class MatrixWriter:
    """Writer of embeddings, linear layers, head and norms.

    A product with a quantized matrix is one node with what surrounds it, which saves passes over
    the rows.

    Attributes:
        storage: Storage format of each node's matrix, by the name of the node.
    """

    def __init__(
        self,
        writer: ModelWriter,
        weights: Mapping[str, FloatArray],
        quantizer: Quantizer,
        *,
        tied: bool,
        epsilon: float,
    ) -> None:
        self.storage: dict[str, Storage] = {}
        self._writer = writer
        self._weights = weights
        self._quantizer = quantizer
        self._head = "wte" if tied else _HEAD
        self._epsilon = epsilon

    def add_embedding(self, name: str, indices: str, storage: Storage) -> str:
        """Add a table [entries, channels] and the lookup of indices in it.

        Args:
            name: Name of the table.
            indices: Name of the indices, [tokens].
            storage: Storage format of the table.

        Returns:
            Name of the output, float32 [tokens, channels].
        """
        self.storage[name] = storage
        output = f"{name}.output"
        if storage == FP32_STORAGE:
            return self._writer.add_node(
                "Gather", [self._add_weight(name), indices], [output], name=name
            )
        table = self._weights[f"{name}.weight"]
        entries = round_to_nearest(name, table.T, storage)
        rows = self._writer.add_constant(f"{name}.rows", entries.data.reshape(len(table), -1))
        scales = self._writer.add_constant(f"{name}.scales", entries.scales)
        padded = entries.inputs > table.shape[1]
        gathered = self._writer.add_node(
            "GatherBlockQuantized",
            [rows, indices, scales],
            [f"{name}.padded" if padded else output],
            name=name,
            domain=CONTRIB,
            gather_axis=0,
            quantize_axis=1,
            bits=storage.bits,
            block_size=storage.block_size,
        )
        return self._add_cut(gathered, table.shape[1], output) if padded else gathered

    def add_linear(
        self,
        name: str,
        hidden: str,
        storage: Storage,
        *,
        norm: str = "",
        activation: Activation | None = None,
        residual: str = "",
    ) -> str:
        """Add a linear layer, after a norm or before a residual.

        Args:
            name: Name of the matrix, [in, out].
            hidden: Name of the input, [rows, in].
            storage: Storage format of the matrix.
            norm: Name of the norm of the input; empty if there is none.
            activation: Activation function of the product, after a norm; None if there is none.
            residual: Name of the tensor that is added to the product, [rows, out]; without a norm.

        Returns:
            Name of the output, [rows, out].
        """
        self.storage[name] = storage
        bias = self._writer.add_constant(f"{name}.bias", self._weights[f"{name}.bias"])
        if storage == FP32_STORAGE:
            rows = self._add_norm(norm, hidden) if norm else hidden
            inputs = [rows, self._add_weight(name), bias]
            output = self._writer.add_node("Gemm", inputs, [f"{name}.output"], name=name)
        elif residual:
            return self._add_packed(Product.ADD, name, storage, hidden, [bias, residual])
        else:
            fused = activation == _FUSED
            operator = Product.NORM_GELU if fused else Product.NORM
            extra = [bias, *self._norm_weights(norm)]
            output = self._add_packed(operator, name, storage, hidden, extra)
            activation = None if fused else activation
        if activation:
            output = self._add_activation(f"{name}.act", output, activation)
        if residual:
            output = self._writer.add_node(
                "Add", [output, residual], [f"{name}.sum"], name=f"{name}.add"
            )
        return output

    def add_head(self, hidden: str, norm: str, ids: str, output: str, storage: Storage) -> str:
        """Add the final norm and the product with the head.

        Args:
            hidden: Name of the input, [rows, channels].
            norm: Name of the norm.
            ids: Name of the token ids whose logits are computed, [ids]; none means all.
            output: Name of the output, [rows, ids or vocabulary].
            storage: Storage format of the head; quantized.

        Returns:
            The name of the output.
        """
        self.storage[_HEAD] = storage
        extra = [ids, *self._norm_weights(norm)]
        return self._add_packed(Product.NORM_HEAD, _HEAD, storage, hidden, extra, output=output)

    def add_float_head(
        self, hidden: str, norm: str, ids: str, output: str, *, restricted: bool
    ) -> str:
        """Add the final norm and the product with a head in fp32.

        Args:
            hidden: Name of the input, [rows, channels].
            norm: Name of the norm.
            ids: Name of the token ids, [ids].
            output: Name of the output, [rows, ids] if restricted, else [rows, vocabulary].
            restricted: Whether to compute the logits of the ids alone.

        Returns:
            The name of the output.
        """
        self.storage[_HEAD] = FP32_STORAGE
        entries = self._add_weight(self._head)
        if restricted:
            wanted = f"{_HEAD}.entries"
            entries = self._writer.add_node("Gather", [entries, ids], [wanted], name=wanted)
        rows = self._add_norm(norm, hidden, prefix=f"{output}.")
        return self._writer.add_node("Gemm", [rows, entries], [output], name=output, transB=1)

    def _norm_weights(self, name: str) -> list[str]:
        parts = (f"{name}.{part}" for part in ("weight", "bias"))
        return [self._writer.add_constant(part, self._weights[part]) for part in parts]

    def _add_norm(self, name: str, hidden: str, prefix: str = "") -> str:
        return self._writer.add_node(
            "LayerNormalization",
            [hidden, *self._norm_weights(name)],
            [f"{prefix}{name}.output"],
            name=f"{prefix}{name}",
            axis=-1,
            epsilon=self._epsilon,
        )

    def _add_activation(self, name: str, inner: str, kind: Activation) -> str:
        attributes = {} if kind.alpha is None else {"alpha": kind.alpha}
        return self._writer.add_node(
            kind.operator, [inner], [f"{name}.output"], name=name, domain=kind.domain, **attributes
        )

    def _add_cut(self, padded: str, width: int, output: str) -> str:
        """Add the first channels of a padded tensor, [tokens, width]."""
        zero = self._writer.add_constant("first_channel", np.array([0]))
        end = self._writer.add_constant(f"{output}.width", np.array([width]))
        axis = self._writer.add_constant("channel_axis", np.array([1]))
        return self._writer.add_node("Slice", [padded, zero, end, axis], [output], name=output)

    def _add_weight(self, name: str) -> str:
        return self._writer.add_constant(f"{name}.weight", self._weights[f"{name}.weight"])

    def _add_packed(
        self,
        operator: Product,
        name: str,
        storage: Storage,
        hidden: str,
        extra: list[str],
        *,
        output: str = "",
    ) -> str:
        """Quantize a matrix, and add the product with it.

        Args:
            operator: Operator of the product.
            name: Name of the node and of the matrix.
            storage: Storage format of the matrix; quantized.
            hidden: Name of the rows.
            extra: Names of the inputs after the matrix.
            output: Name of the output; by default made of the node's.
        """
        weight = self._weights[f"{name}.weight"] if name != _HEAD else self._head_weight()
        packed = pack_matrix(self._quantizer(name, weight, storage))
        has_zeros = packed.zero_points is not None
        self._writer.add_function(product_function(operator, packed.bits, zero_points=has_zeros))
        prefix = f"{name}.{packed.bits}bit"
        inputs = [
            hidden,
            self._writer.add_constant(f"{prefix}.panels", packed.weights),
            self._writer.add_constant(f"{prefix}.scales", packed.scales),
            *extra,
        ]
        if packed.zero_points is not None:
            inputs.append(self._writer.add_constant(f"{prefix}.zero_points", packed.zero_points))
        norm = {} if operator is Product.ADD else {"epsilon": self._epsilon}
        return self._writer.add_node(
            f"{operator}{packed.bits}",
            inputs,
            [output or f"{name}.output"],
            name=name,
            domain=DOMAIN,
            K=len(weight),
            N=packed.outputs,
            block_size=packed.block_size,
            **norm,
        )

    def _head_weight(self) -> FloatArray:
        return self._weights[f"{self._head}.weight"].T
