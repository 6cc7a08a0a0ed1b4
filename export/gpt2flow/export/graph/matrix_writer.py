"""Writer of the nodes that have a matrix, in any storage format."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.graph.model_writer import CONTRIB, ModelWriter
from gpt2flow.export.quantization.rounding import (
    Quantizer,
    pack,
    quantize_columns,
    round_to_nearest,
)
from gpt2flow.export.recipe import COLUMNS, FP32_STORAGE, Storage

# Level 4 rounds activations to 8 bits too; without it, the 8-bit kernel is 150 times slower.
ACCURACY_LEVEL: Final = 4

# Rows are divided by their largest value, and at least by this. GELU and similar functions never
# fall below its negative, so the divisor bounds the magnitude of all values in a row.
_MIN_DIVISOR: Final = 0.3


class MatrixWriter:
    """Writer of embeddings, linear layers and heads.

    A matrix that several nodes share in the same format is stored once.

    Attributes:
        storage: Storage format of each node's matrix, by the name of the node.
        column_bytes: Size in bytes of each matrix that is stored in `COLUMNS`, by its name.
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
        self.column_bytes: dict[str, int] = {}
        self._writer = writer
        self._weights = weights
        self._quantizer = quantizer
        self._tied = tied

    def add_embedding(self, name: str, indices: str, storage: Storage, *, node: str = "") -> str:
        """Add a table [entries, channels] and the lookup of indices in it.

        Args:
            name: Name of the table.
            indices: Name of the indices.
            storage: Storage format of the table.
            node: Name of the node; defaults to that of the table.

        Returns:
            Name of the output, float32 [*indices, channels].
        """
        node = node or name
        self.storage[node] = storage
        output = f"{node}.output"
        if storage == FP32_STORAGE:
            weight = self._add_fp32_weight(name)
            return self._writer.add_node("Gather", [weight, indices], [output], name=node)
        if storage == COLUMNS:
            return self._add_column_embedding(name, indices, output, node)
        rows, scales = self._add_block_embedding(name, storage)
        return self._writer.add_node(
            "GatherBlockQuantized",
            [rows, indices, scales],
            [output],
            name=node,
            domain=CONTRIB,
            gather_axis=0,
            quantize_axis=1,
            bits=storage.bits,
            block_size=storage.block_size,
        )

    def add_linear(
        self, scope: str, name: str, hidden: str, storage: Storage, *, normalize_rows: bool = False
    ) -> str:
        """Add the product with a matrix [in, out], plus a bias.

        Args:
            scope: Prefix of the names of nodes.
            name: Name of the matrix.
            hidden: Name of the input, [..., in].
            storage: Storage format of the matrix.
            normalize_rows: Whether rows of `hidden` may differ in magnitude by orders; see
                `_add_row_normalized_product`. Applies to `COLUMNS` only.

        Returns:
            Name of the output, [..., out].
        """
        self.storage[scope + name] = storage
        output = f"{scope}{name}.output"
        bias = self._writer.add_constant(f"{name}.bias", self._weights[f"{name}.bias"])
        if storage == COLUMNS:
            return self._add_column_product(
                scope + name, name, hidden, bias, output, normalize_rows=normalize_rows
            )
        if storage == FP32_STORAGE:
            product = self._writer.add_node(
                "MatMul",
                [hidden, self._add_fp32_weight(name)],
                [f"{output}.product"],
                name=scope + name,
            )
            return self._writer.add_node(
                "Add", [product, bias], [output], name=f"{scope}{name}.add"
            )
        return self._add_block_product(
            scope + name, name, hidden, bias, output=output, storage=storage
        )

    def add_head(self, scope: str, hidden: str, output: str, storage: Storage) -> str:
        """Add the product with the head, which may share the token embedding.

        Args:
            scope: Prefix of the names of nodes.
            hidden: Name of the input, [rows, channels].
            output: Name of the output, [rows, vocabulary].
            storage: Storage format of the head.

        Returns:
            The name of the output.
        """
        source = "wte" if self._tied else "lm_head"
        node = f"{scope}lm_head"
        self.storage[node] = storage
        if storage == FP32_STORAGE:
            return self._writer.add_node(
                "Gemm", [hidden, self._add_fp32_weight(source)], [output], name=node, transB=1
            )
        if storage == COLUMNS:
            return self._add_column_product(node, source, hidden, "", output, transposed=True)
        return self._add_block_product(
            node, source, hidden, "", output=output, storage=storage, transposed=True
        )

    def add_restricted_head(
        self, scope: str, hidden: str, ids: str, output: str, storage: Storage
    ) -> str:
        """Add the product with a subset of the head's entries.

        Quantized entries are dequantized first, and the input stays fp32.

        Args:
            scope: Prefix of the names of nodes.
            hidden: Name of the input, [rows, channels].
            ids: Name of the token ids whose entries are used, [ids].
            output: Name of the output, [rows, ids].
            storage: Storage format of the embeddings, which the entries share.

        Returns:
            The name of the output.
        """
        source = "wte" if self._tied else "lm_head"
        entries = self.add_embedding(source, ids, storage, node=f"{scope}lm_head")
        return self._writer.add_node(
            "Gemm", [hidden, entries], [output], name=f"{scope}product", transB=1
        )

    def _add_fp32_weight(self, name: str) -> str:
        return self._writer.add_constant(f"{name}.weight", self._weights[f"{name}.weight"])

    def _matrix(self, name: str, *, transposed: bool) -> FloatArray:
        """Return a matrix as [in, out]; tables are stored transposed."""
        weight = self._weights[f"{name}.weight"]
        return weight.T if transposed else weight

    def _add_column_embedding(self, name: str, indices: str, output: str, node: str) -> str:
        """Add an embedding with one scale per entry."""
        if not self._writer.has_constant(f"{name}.entries"):
            entries = quantize_columns(self._matrix(name, transposed=True))
            self._writer.add_constant(f"{name}.entries", np.ascontiguousarray(entries.data.T))
            self._writer.add_constant(f"{name}.entry_scales", entries.scales[:, np.newaxis])
        picked = []
        for part in ("entries", "entry_scales"):
            gathered = f"{node}.picked_{part}"
            self._writer.add_node("Gather", [f"{name}.{part}", indices], [gathered], name=gathered)
            picked.append(gathered)
        codes = self._writer.add_node(
            "Cast", picked[:1], [f"{node}.numbers"], name=f"{node}.cast", to=1
        )
        return self._writer.add_node("Mul", [codes, picked[1]], [output], name=node)

    def _add_block_embedding(self, name: str, storage: Storage) -> tuple[str, str]:
        """Add an embedding in blocks.

        A tied head of the same format becomes an alias of it; see `_add_blocks`.

        Returns:
            Names of the codes and of the scales.
        """
        names = _block_names(name, storage)
        rows = f"{names[0]}.rows"
        entries = round_to_nearest(name, self._matrix(name, transposed=True), storage)
        self._writer.add_constant(rows, entries.data.reshape(len(entries.data), -1))
        self._writer.add_constant(names[1], entries.scales)
        return rows, names[1]

    def _add_column_product(
        self,
        node: str,
        name: str,
        hidden: str,
        bias: str,
        output: str,
        *,
        transposed: bool = False,
        normalize_rows: bool = False,
    ) -> str:
        data, scales = f"{name}.columns", f"{name}.column_scales"
        if not self._writer.has_constant(data):
            columns = quantize_columns(self._matrix(name, transposed=transposed))
            self._writer.add_constant(data, columns.data)
            self._writer.add_constant(scales, columns.scales)
            self.column_bytes[name] = columns.data.nbytes + columns.scales.nbytes
        if normalize_rows:
            return self._add_row_normalized_product(node, [data, scales], hidden, bias, output)
        inputs = [hidden, data, scales, *(["", bias] if bias else [])]
        return self._writer.add_node(
            "DynamicQuantizeMatMul", inputs, [output], name=node, domain=CONTRIB
        )

    def _add_row_normalized_product(
        self, node: str, matrix: list[str], hidden: str, bias: str, output: str
    ) -> str:
        """Add a product whose input rows are scaled to the same magnitude.

        `DynamicQuantizeMatMul` quantizes all rows with a single scale. The first token of a GPT-2
        can have activations so large that those of the other rows would be rounded to zero. So each
        row is divided by its largest value before the product, and multiplied by it afterwards.
        """
        add = self._writer.add_node
        axis = self._writer.add_constant("last_axis", np.array([-1]))
        least = self._writer.add_constant("least_divisor", np.array(_MIN_DIVISOR, np.float32))
        largest = add("ReduceMax", [hidden, axis], [f"{node}.largest"], name=f"{node}.largest")
        divisor = add("Max", [largest, least], [f"{node}.size"], name=f"{node}.size")
        scaled = add("Div", [hidden, divisor], [f"{node}.even"], name=f"{node}.even")
        product = add(
            "DynamicQuantizeMatMul",
            [scaled, *matrix],
            [f"{node}.product"],
            name=node,
            domain=CONTRIB,
        )
        product = add("Mul", [product, divisor], [f"{node}.uneven"], name=f"{node}.uneven")
        return add("Add", [product, bias], [output], name=f"{node}.add")

    def _add_blocks(self, name: str, storage: Storage, *, transposed: bool) -> list[str]:
        """Add a matrix in blocks, unless it exists.

        Returns:
            Names of its codes, scales and, if there are any, zero points, in the order of the
            operator's inputs.
        """
        data, scales, zeros = _block_names(name, storage)
        rows = f"{data}.rows"
        if self._writer.has_constant(rows) and not self._writer.has_constant(data):
            inputs, outputs = self._matrix(name, transposed=transposed).shape
            shape = (
                outputs,
                inputs // (storage.block_size or inputs),
                storage.block_size or inputs,
            )
            self._writer.add_alias(data, rows, shape)
        elif not self._writer.has_constant(data):
            # Quantizers distinguish a tied head from the embedding that it shares weights with.
            quantized = "lm_head" if transposed else name
            blocks = self._quantizer(quantized, self._matrix(name, transposed=transposed), storage)
            self._writer.add_constant(data, blocks.data)
            self._writer.add_constant(scales, blocks.scales)
            if blocks.zero_points is not None:
                packed = blocks.zero_points if storage.bits == 8 else pack(blocks.zero_points)
                self._writer.add_constant(zeros, packed)
        return [data, scales, zeros] if self._writer.has_constant(zeros) else [data, scales]

    def _add_block_product(
        self,
        node: str,
        name: str,
        hidden: str,
        bias: str,
        *,
        output: str,
        storage: Storage,
        transposed: bool = False,
    ) -> str:
        inputs, outputs = self._matrix(name, transposed=transposed).shape
        blocks = self._add_blocks(name, storage, transposed=transposed)
        if bias:
            blocks += [""] * (4 - len(blocks)) + [bias]
        return self._writer.add_node(
            "MatMulNBits",
            [hidden, *blocks],
            [output],
            name=node,
            domain=CONTRIB,
            K=inputs,
            N=outputs,
            bits=storage.bits,
            block_size=storage.block_size,
            accuracy_level=ACCURACY_LEVEL,
        )


def _block_names(name: str, storage: Storage) -> tuple[str, str, str]:
    """Return the names of a block matrix's codes, scales and zero points."""
    prefix = f"{name}.{storage.bits}bit"
    return f"{prefix}.blocks", f"{prefix}.scales", f"{prefix}.zero_points"
