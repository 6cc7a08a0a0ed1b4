"""The nodes of a graph that own a matrix, each stored as it is asked for."""

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

# Activations are rounded to 8 bits too; without it the 8-bit kernel is some 150 times slower.
ACCURACY_LEVEL: Final = 4

# Rows are divided by their largest number, or by this where that is smaller; GELU and its kin
# have no number below its negative, so that it bounds the size of all of a row.
_LEAST_DIVISOR: Final = 0.3


class MatrixWriter:
    """Adds embeddings, linear layers and heads to a graph.

    A matrix that several nodes share, in whatever form, is in the file once.

    Attributes:
        storage: How the matrix of each node is stored, by the name of the node.
        column_bytes: What each matrix takes in columns, if it is there in columns.
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

    def embedding(self, name: str, indices: str, storage: Storage, *, node: str = "") -> str:
        """Add a table [entries, channels] and what its indices pick; returns the outcome.

        Args:
            name: The name of the table.
            indices: What picks its entries.
            storage: How it is stored.
            node: The name of the node; that of the table if empty.
        """
        node = node or name
        self.storage[node] = storage
        output = f"{node}.output"
        if storage == FP32_STORAGE:
            weight = self._exact(name)
            return self._writer.node("Gather", [weight, indices], [output], name=node)
        if storage == COLUMNS:
            return self._entries(name, indices, output, node)
        rows, scales = self._block_entries(name, storage)
        return self._writer.node(
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

    def linear(
        self, scope: str, name: str, hidden: str, storage: Storage, *, uneven: bool = False
    ) -> str:
        """Add the product with a matrix [in, out], and a bias; returns the outcome.

        Args:
            scope: What the names of nodes begin with.
            name: The name of the matrix.
            hidden: What it is multiplied with.
            storage: How it is stored.
            uneven: Rows of `hidden` may differ in size by orders of magnitude.
        """
        self.storage[scope + name] = storage
        output = f"{scope}{name}.output"
        bias = self._writer.constant(f"{name}.bias", self._weights[f"{name}.bias"])
        if storage == COLUMNS:
            return self._column_product(scope + name, name, hidden, bias, output, uneven=uneven)
        if storage == FP32_STORAGE:
            product = self._writer.node(
                "MatMul", [hidden, self._exact(name)], [f"{output}.product"], name=scope + name
            )
            return self._writer.node("Add", [product, bias], [output], name=f"{scope}{name}.add")
        return self._block_product(scope + name, name, hidden, bias, output=output, storage=storage)

    def head(self, scope: str, hidden: str, output: str, storage: Storage) -> str:
        """Add the product with the head, which shares the bytes of a tied token embedding."""
        source = "wte" if self._tied else "lm_head"
        node = f"{scope}lm_head"
        self.storage[node] = storage
        if storage == FP32_STORAGE:
            return self._writer.node(
                "Gemm", [hidden, self._exact(source)], [output], name=node, transB=1
            )
        if storage == COLUMNS:
            return self._column_product(node, source, hidden, "", output, transposed=True)
        return self._block_product(
            node, source, hidden, "", output=output, storage=storage, transposed=True
        )

    def head_of_some(self, scope: str, hidden: str, ids: str, output: str, storage: Storage) -> str:
        """Add the product with those outputs of the head that ids name; returns the outcome.

        Args:
            scope: What the names of nodes begin with.
            hidden: [rows, channels].
            ids: Which outputs.
            output: What the outcome is called: [rows, ids].
            storage: How embeddings are stored; a tied head's entries are theirs.
        """
        source = "wte" if self._tied else "lm_head"
        entries = self.embedding(source, ids, storage, node=f"{scope}lm_head")
        return self._writer.node(
            "Gemm", [hidden, entries], [output], name=f"{scope}product", transB=1
        )

    def _exact(self, name: str) -> str:
        return self._writer.constant(f"{name}.weight", self._weights[f"{name}.weight"])

    def _matrix(self, name: str, *, transposed: bool) -> FloatArray:
        """Return a matrix [in, out]; embeddings and heads are held the other way."""
        weight = self._weights[f"{name}.weight"]
        return weight.T if transposed else weight

    def _entries(self, name: str, indices: str, output: str, node: str) -> str:
        """Add an embedding with a scale for each entry."""
        if not self._writer.has(f"{name}.entries"):
            entries = quantize_columns(self._matrix(name, transposed=True))
            self._writer.constant(f"{name}.entries", np.ascontiguousarray(entries.data.T))
            self._writer.constant(f"{name}.entry_scales", entries.scales[:, np.newaxis])
        picked = []
        for part in ("entries", "entry_scales"):
            outcome = f"{node}.picked_{part}"
            self._writer.node("Gather", [f"{name}.{part}", indices], [outcome], name=outcome)
            picked.append(outcome)
        numbers = self._writer.node(
            "Cast", picked[:1], [f"{node}.numbers"], name=f"{node}.cast", to=1
        )
        return self._writer.node("Mul", [numbers, picked[1]], [output], name=node)

    def _block_entries(self, name: str, storage: Storage) -> tuple[str, str]:
        """Add an embedding in blocks; a tied head of the same storage is an alias of it."""
        names = _block_names(name, storage)
        rows = f"{names[0]}.rows"
        entries = round_to_nearest(name, self._matrix(name, transposed=True), storage)
        self._writer.constant(rows, entries.data.reshape(len(entries.data), -1))
        self._writer.constant(names[1], entries.scales)
        return rows, names[1]

    def _column_product(
        self,
        node: str,
        name: str,
        hidden: str,
        bias: str,
        output: str,
        *,
        transposed: bool = False,
        uneven: bool = False,
    ) -> str:
        data, scales = f"{name}.columns", f"{name}.column_scales"
        if not self._writer.has(data):
            columns = quantize_columns(self._matrix(name, transposed=transposed))
            self._writer.constant(data, columns.data)
            self._writer.constant(scales, columns.scales)
            self.column_bytes[name] = columns.data.nbytes + columns.scales.nbytes
        if uneven:
            return self._even_product(node, [data, scales], hidden, bias, output)
        inputs = [hidden, data, scales, *(["", bias] if bias else [])]
        return self._writer.node(
            "DynamicQuantizeMatMul", inputs, [output], name=node, domain=CONTRIB
        )

    def _even_product(
        self, node: str, matrix: list[str], hidden: str, bias: str, output: str
    ) -> str:
        """Add a product whose rows are brought to one size before, and back after.

        The operator rounds all rows with one scale: a single large one, as the first token of a
        GPT-2 has, would leave nothing of the others.
        """
        add = self._writer.node
        axis = self._writer.constant("last_axis", np.array([-1]))
        least = self._writer.constant("least_divisor", np.array(_LEAST_DIVISOR, np.float32))
        size = add("ReduceMax", [hidden, axis], [f"{node}.largest"], name=f"{node}.largest")
        size = add("Max", [size, least], [f"{node}.size"], name=f"{node}.size")
        even = add("Div", [hidden, size], [f"{node}.even"], name=f"{node}.even")
        product = add(
            "DynamicQuantizeMatMul", [even, *matrix], [f"{node}.product"], name=node, domain=CONTRIB
        )
        product = add("Mul", [product, size], [f"{node}.uneven"], name=f"{node}.uneven")
        return add("Add", [product, bias], [output], name=f"{node}.add")

    def _blocks(self, name: str, storage: Storage, *, transposed: bool) -> list[str]:
        """Add a matrix in blocks, if it is not there yet; returns its names as inputs."""
        data, scales, zeros = _block_names(name, storage)
        rows = f"{data}.rows"
        if self._writer.has(rows) and not self._writer.has(data):
            inputs, outputs = self._matrix(name, transposed=transposed).shape
            shape = (
                outputs,
                inputs // (storage.block_size or inputs),
                storage.block_size or inputs,
            )
            self._writer.alias(data, rows, shape)
        elif not self._writer.has(data):
            # The bytes of a tied head may be those of the embedding, its blocks are its own.
            own = "lm_head" if transposed else name
            blocks = self._quantizer(own, self._matrix(name, transposed=transposed), storage)
            self._writer.constant(data, blocks.data)
            self._writer.constant(scales, blocks.scales)
            if blocks.zero_points is not None:
                packed = blocks.zero_points if storage.bits == 8 else pack(blocks.zero_points)
                self._writer.constant(zeros, packed)
        return [data, scales, zeros] if self._writer.has(zeros) else [data, scales]

    def _block_product(
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
        blocks = self._blocks(name, storage, transposed=transposed)
        if bias:
            blocks += [""] * (4 - len(blocks)) + [bias]
        return self._writer.node(
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
    """Return the names of the numbers, the scales and the zero points of a matrix in blocks."""
    prefix = f"{name}.{storage.bits}bit"
    return f"{prefix}.blocks", f"{prefix}.scales", f"{prefix}.zero_points"
