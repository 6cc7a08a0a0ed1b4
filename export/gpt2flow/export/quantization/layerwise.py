"""Checkpoint as a PyTorch model that is run layer by layer.

Imports torch and transformers, which takes seconds.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch

from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.checkpoint.checkpoint import Checkpoint
from gpt2flow.export.checkpoint.torch_model import load_torch_model, quiet_libraries
from gpt2flow.export.graph.head_padding import PaddedHeads
from gpt2flow.export.quantization.gptq import quantize_gptq
from gpt2flow.export.quantization.rounding import BlockMatrix
from gpt2flow.export.recipe import Storage, StorageSelector

MATRICES: Final = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
"""Names of the matrices of a layer, in the order of their use."""

HEAD: Final = "lm_head"
"""Name of the matrix after the layers."""

_PADDED_INPUTS: Final = "attn.c_proj"


class LayerwiseModel:
    """GPT-2 with layers that run one at a time and replaceable weights.

    Attributes:
        architecture: Architecture of the model.
        layers: Modules of the layers.
    """

    def __init__(self, source: Checkpoint) -> None:
        self.architecture = source.architecture
        self._heads = PaddedHeads({}, source.architecture)
        with quiet_libraries():
            self._model = load_torch_model(source).requires_grad_(requires_grad=False)
        self.layers: list[Any] = list(self._model.transformer.h)

    def embed(self, window: TokenArray) -> torch.Tensor:
        """Return the input of the first layer, float32 [1, tokens, channels]."""
        transformer = self._model.transformer
        tokens = torch.from_numpy(window)
        hidden: torch.Tensor = transformer.wte(tokens) + transformer.wpe(torch.arange(len(tokens)))
        return hidden[None]

    def run_layer(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """Return the output of a layer, float32 [1, tokens, channels]."""
        # Some releases of transformers leave all masking to the model around the layers.
        ahead = hidden.new_full(2 * hidden.shape[1:2], torch.finfo(hidden.dtype).min).triu_(1)
        output = self.layers[layer](hidden, attention_mask=ahead[None, None])
        # Releases of transformers differ in whether they return a tuple.
        result: torch.Tensor = output[0] if isinstance(output, tuple) else output
        return result

    def log_probabilities(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the predictions from the output of the last layer.

        Args:
            hidden: float32 [1, tokens, channels].

        Returns:
            Log-probabilities, float32 [tokens, vocabulary].
        """
        logits = self._model.lm_head(self._model.transformer.ln_f(hidden))[0]
        return torch.log_softmax(logits, -1)

    def weight(self, name: str) -> FloatArray:
        """Return a matrix with its heads padded, float32 [in, out]."""
        if name == HEAD:
            head: FloatArray = self._model.lm_head.weight.numpy().T
            return head
        full = f"{name}.weight"
        weight = self._module(name).weight.numpy()
        return PaddedHeads({full: weight}, self.architecture)[full]

    def replace_weight(self, name: str, blocks: BlockMatrix) -> None:
        """Replace the weight of a matrix by the dequantized blocks."""
        weight = self._heads.strip(f"{name}.weight", blocks.dequantize())
        # A new tensor, since the old one may be mapped to the checkpoint's file.
        self._module(name).weight.data = torch.from_numpy(np.ascontiguousarray(weight))

    def head_hessian(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the Hessian of the head.

        Args:
            rows: Outputs of the last layer, float32 [1, tokens, channels] each.

        Returns:
            Sum of input · inputᵀ over all tokens, float32 [in, in].
        """
        normalized = [self._model.transformer.ln_f(hidden[0]) for hidden in rows]
        return sum((hidden.T @ hidden for hidden in normalized), torch.zeros(()))

    def block_matrices(
        self, select_storage: StorageSelector, on_layer: Callable[[int, int], None]
    ) -> Iterator[tuple[str, FloatArray, Storage]]:
        """Iterate over the matrices that are stored in blocks.

        Args:
            select_storage: Function that selects the storage format of each matrix.
            on_layer: Progress callback, called after each layer with the layers done and in total.

        Yields:
            Name, weight as float32 [in, out], and storage format of a matrix.
        """
        count = len(self.layers)
        names = [[f"h.{layer}.{part}" for part in MATRICES] for layer in range(count)]
        for done, group in enumerate([*names, [HEAD]]):
            for name in group:
                weight = self.weight(name)
                storage = select_storage(name, len(weight))
                if storage.divides(len(weight)):
                    yield name, weight, storage
            on_layer(min(done + 1, count), count)

    @contextmanager
    def replaced_weight(self, name: str, blocks: BlockMatrix) -> Iterator[None]:
        """Replace the weight of a matrix inside a `with` block."""
        before = self._module(name).weight.data
        self.replace_weight(name, blocks)
        try:
            yield
        finally:
            self._module(name).weight.data = before

    def hessians(self, layer: int, rows: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the Hessian of each matrix of a layer.

        Args:
            layer: Index of the layer, counted from 0.
            rows: Inputs of the layer, float32 [1, tokens, channels] each.

        Returns:
            Sum of input · inputᵀ over all tokens, float32 [in, in], by the name of the matrix. The
            inputs of `attn.c_proj` are padded heads.
        """
        sums: dict[str, torch.Tensor] = {}

        def add(name: str, inputs: tuple[torch.Tensor]) -> None:
            flat = inputs[0].reshape(-1, inputs[0].shape[-1])
            sums[name] = sums.get(name, 0) + flat.T @ flat

        hooks = [
            self.layers[layer]
            .get_submodule(part)
            .register_forward_pre_hook(lambda _module, inputs, part=part: add(part, inputs))
            for part in MATRICES
        ]
        try:
            for hidden in rows:
                self.run_layer(layer, hidden)
        finally:
            for hook in hooks:
                hook.remove()
        sums[_PADDED_INPUTS] = self._pad(sums[_PADDED_INPUTS])
        return {f"h.{layer}.{part}": total for part, total in sums.items()}

    def _module(self, name: str) -> Any:
        return self._model.transformer.get_submodule(name)

    def _pad(self, hessian: torch.Tensor) -> torch.Tensor:
        channels = torch.from_numpy(self._heads.real_channels(parts=1))
        size = self._heads.channels(parts=1)
        padded = torch.zeros(size, size)
        padded[channels[:, None], channels] = hessian
        return padded


def quantize_model_with_gptq(
    model: LayerwiseModel,
    windows: Sequence[TokenArray],
    select_storage: StorageSelector,
    on_layer: Callable[[int, int], None],
) -> dict[str, BlockMatrix]:
    """Quantize the matrices of all layers and the head with GPTQ.

    Layers are quantized in order. The Hessians of a layer are measured on the outputs of the
    quantized layers before it. Its matrices are so optimized for the inputs that they receive in
    the quantized model.

    Args:
        model: Model whose weights are replaced by the dequantized ones.
        windows: Token windows to calibrate with, int64 [tokens] each.
        select_storage: Function that selects the storage format of each matrix; those whose
            inputs do not divide into blocks are skipped.
        on_layer: Progress callback, called after each layer with the layers done and in total.

    Returns:
        The quantized matrices by name, with heads padded.
    """
    rows = [model.embed(window) for window in windows]
    blocks: dict[str, BlockMatrix] = {}
    count = model.architecture.layers
    for layer in range(count):
        for name, hessian in model.hessians(layer, rows).items():
            weight = model.weight(name)
            storage = select_storage(name, len(weight))
            if storage.divides(len(weight)):
                blocks[name] = quantize_gptq(torch.from_numpy(weight), hessian, storage)
                model.replace_weight(name, blocks[name])
        rows = [model.run_layer(layer, hidden) for hidden in rows]
        on_layer(layer + 1, count)
    weight = model.weight(HEAD)
    storage = select_storage(HEAD, len(weight))
    if storage.divides(len(weight)):
        matrix = torch.from_numpy(weight)
        blocks[HEAD] = quantize_gptq(matrix, model.head_hessian(rows), storage)
    return blocks
