"""The nodes of a graph that own a matrix, each stored as the recipe of a profile says."""

from collections.abc import Mapping
from typing import Final

from gpt2flow.export.arrays import FloatArray
from gpt2flow.export.model_writer import CONTRIB, ModelWriter
from gpt2flow.export.quantize import quantize
from gpt2flow.export.recipe import ProfileRecipe, Storage

# Activations are rounded to 8 bits too; without it the 8-bit kernel is some 150 times slower.
ACCURACY_LEVEL: Final = 4


class MatrixWriter:
    """Adds embeddings, linear layers and the head to a graph.

    Attributes:
        storage: How the matrix of each node is stored, by the name of the node.
    """

    def __init__(
        self,
        writer: ModelWriter,
        weights: Mapping[str, FloatArray],
        recipe: ProfileRecipe,
        *,
        tied: bool,
    ) -> None:
        self.storage: dict[str, Storage] = {}
        self._writer = writer
        self._weights = weights
        self._recipe = recipe
        self._tied = tied

    def embedding(self, name: str, indices: str) -> str:
        """Adds a table [entries, channels] and what its indices pick; returns the outcome."""
        table = self._weights[f"{name}.weight"]
        storage = self.storage[name] = self._recipe.storage(table.shape[1])
        outputs = [f"{name}.output"]
        if storage.block_size is None:
            weight = self._writer.constant(f"{name}.weight", table)
            return self._writer.node("Gather", [weight, indices], outputs, name=name)
        data, scales = self._quantized(name, table.T, storage.block_size)
        rows = self._writer.alias(f"{name}.rows", data, table.shape)
        return self._writer.node(
            "GatherBlockQuantized",
            [rows, indices, scales],
            outputs,
            name=name,
            domain=CONTRIB,
            gather_axis=0,
            quantize_axis=1,
            bits=storage.bits,
            block_size=storage.block_size,
        )

    def linear(self, name: str, hidden: str) -> str:
        """Adds the product with a matrix [in, out], and a bias; returns the outcome."""
        matrix = self._weights[f"{name}.weight"]
        bias = self._writer.constant(f"{name}.bias", self._weights[f"{name}.bias"])
        storage = self.storage[name] = self._recipe.storage(len(matrix))
        output = f"{name}.output"
        if storage.block_size is not None:
            blocks = self._quantized(name, matrix, storage.block_size)
            inputs = [hidden, *blocks, "", "", bias]
            return self._quantized_product(name, inputs, output, matrix.shape, storage)
        weight = self._writer.constant(f"{name}.weight", matrix)
        product = self._writer.node("MatMul", [hidden, weight], [f"{name}.product"], name=name)
        return self._writer.node("Add", [product, bias], [output], name=f"{name}.add")

    def head(self, hidden: str, output: str) -> str:
        """Adds the product with the head, which shares the bytes of a tied token embedding."""
        name = "lm_head"
        source = "wte" if self._tied else name
        matrix = self._weights[f"{source}.weight"].T
        storage = self.storage[name] = self._recipe.storage(len(matrix))
        if storage.block_size is not None:
            blocks = _names(source)
            if not self._tied:
                self._quantized(source, matrix, storage.block_size)
            return self._quantized_product(name, [hidden, *blocks], output, matrix.shape, storage)
        weight = f"{source}.weight"
        if not self._tied:
            self._writer.constant(weight, matrix.T)
        return self._writer.node("Gemm", [hidden, weight], [output], name=name, transB=1)

    def _quantized(self, name: str, matrix: FloatArray, block_size: int) -> tuple[str, str]:
        """Adds a matrix [in, out] in blocks; returns the names of its numbers and its scales."""
        quantized = quantize(matrix, block_size)
        data, scales = _names(name)
        self._writer.constant(data, quantized.data)
        self._writer.constant(scales, quantized.scales)
        return data, scales

    def _quantized_product(
        self, name: str, inputs: list[str], output: str, shape: tuple[int, ...], storage: Storage
    ) -> str:
        return self._writer.node(
            "MatMulNBits",
            inputs,
            [output],
            name=name,
            domain=CONTRIB,
            K=shape[0],
            N=shape[1],
            bits=storage.bits,
            block_size=storage.block_size,
            accuracy_level=ACCURACY_LEVEL,
        )


def _names(name: str) -> tuple[str, str]:
    return f"{name}.blocks", f"{name}.scales"
