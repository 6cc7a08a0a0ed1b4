"""Writer of the nodes that have a matrix, in any storage format."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.graph.functions import DOMAIN, head_function, product_function
from gpt2flow.export.graph.model_writer import CONTRIB, ModelWriter
from gpt2flow.export.graph.packed_matrix import PackedMatrix, pack_matrix
from gpt2flow.export.quantization.rounding import Quantizer, round_to_nearest
from gpt2flow.export.recipe import FP32_STORAGE, Storage

_HEAD: Final = "lm_head"


class MatrixWriter:
    """Writer of embeddings, linear layers and the head.

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
    ) -> None:
        self.storage: dict[str, Storage] = {}
        self._writer = writer
        self._weights = weights
        self._quantizer = quantizer
        self._head = "wte" if tied else _HEAD

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

    def add_linear(self, name: str, hidden: str, storage: Storage) -> str:
        """Add the product with a matrix [in, out], plus a bias.

        Args:
            name: Name of the matrix.
            hidden: Name of the input, [rows, in].
            storage: Storage format of the matrix.

        Returns:
            Name of the output, [rows, out].
        """
        self.storage[name] = storage
        output = f"{name}.output"
        bias = self._writer.add_constant(f"{name}.bias", self._weights[f"{name}.bias"])
        if storage == FP32_STORAGE:
            return self._writer.add_node(
                "Gemm", [hidden, self._add_weight(name), bias], [output], name=name
            )
        weight = self._weights[f"{name}.weight"]
        packed = pack_matrix(self._quantizer(name, weight, storage))
        has_zeros = packed.zero_points is not None
        self._writer.add_function(product_function(packed.bits, zero_points=has_zeros))
        return self._add_packed(
            "RowQuantMatMul", name, packed, [hidden, bias], output=output, width=len(weight)
        )

    def add_head(self, hidden: str, ids: str, output: str, storage: Storage) -> str:
        """Add the product with the head, which may share the token embedding.

        Args:
            hidden: Name of the input, [rows, channels].
            ids: Name of the token ids whose logits are computed, [ids]; none means all.
            output: Name of the output, [rows, ids or vocabulary].
            storage: Storage format of the head; quantized.

        Returns:
            The name of the output.
        """
        self.storage[_HEAD] = storage
        weight = self._weights[f"{self._head}.weight"].T
        packed = pack_matrix(self._quantizer(_HEAD, weight, storage))
        has_zeros = packed.zero_points is not None
        self._writer.add_function(head_function(packed.bits, zero_points=has_zeros))
        return self._add_packed(
            "RowQuantHead", _HEAD, packed, [hidden, ids], output=output, width=len(weight)
        )

    def add_float_head(self, hidden: str, ids: str, output: str, *, restricted: bool) -> str:
        """Add the product with a head in fp32.

        Args:
            hidden: Name of the input, [rows, channels].
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
        return self._writer.add_node("Gemm", [hidden, entries], [output], name=output, transB=1)

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
        operator: str,
        name: str,
        packed: PackedMatrix,
        inputs: list[str],
        *,
        output: str,
        width: int,
    ) -> str:
        """Add a product with a packed matrix.

        Args:
            operator: Name of the operator, without its number of bits.
            name: Name of the node and of the matrix.
            packed: The matrix.
            inputs: Names of the rows, and of the bias or the ids.
            output: Name of the output.
            width: Number of inputs of the matrix.
        """
        prefix = f"{name}.{packed.bits}bit"
        matrix = [
            self._writer.add_constant(f"{prefix}.panels", packed.weights),
            self._writer.add_constant(f"{prefix}.scales", packed.scales),
        ]
        zeros = []
        if packed.zero_points is not None:
            zeros = [self._writer.add_constant(f"{prefix}.zero_points", packed.zero_points)]
        return self._writer.add_node(
            f"{operator}{packed.bits}",
            [inputs[0], *matrix, inputs[1], *zeros],
            [output],
            name=name,
            domain=DOMAIN,
            K=width,
            N=packed.outputs,
            block_size=packed.block_size,
        )
