"""A checkpoint in PyTorch, gone through layer by layer with a text.

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
from gpt2flow.export.quantization.gptq import gptq
from gpt2flow.export.quantization.rounding import BlockMatrix
from gpt2flow.export.recipe import COLUMNS, Storage

MATRICES: Final = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
"""The matrices of a layer, in the order in which it uses them."""

HEAD: Final = "lm_head"
"""The matrix after the layers."""

StorageOf = Callable[[str, int], Storage]

_PADDED_INPUTS: Final = "attn.c_proj"


class LayerwiseModel:
    """A GPT-2 whose layers are run one by one."""

    def __init__(self, source: Checkpoint) -> None:
        self.architecture = source.architecture
        self._heads = PaddedHeads({}, source.architecture)
        with quiet_libraries():
            self._model = load_torch_model(source).requires_grad_(requires_grad=False)
        self.layers: list[Any] = list(self._model.transformer.h)

    def embed(self, window: TokenArray) -> torch.Tensor:
        """Return what enters the first layer, float32 [1, tokens, channels]."""
        transformer = self._model.transformer
        tokens = torch.from_numpy(window)
        hidden: torch.Tensor = transformer.wte(tokens) + transformer.wpe(torch.arange(len(tokens)))
        return hidden[None]

    def run_layer(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """Return what leaves a layer, float32 [1, tokens, channels]."""
        outcome = self.layers[layer](hidden)
        left: torch.Tensor = outcome[0] if isinstance(outcome, tuple) else outcome
        return left

    def log_probabilities(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return what leaves the last layer as predictions, float32 [tokens, vocabulary]."""
        logits = self._model.lm_head(self._model.transformer.ln_f(hidden))[0]
        return torch.log_softmax(logits, -1)

    def weight(self, name: str) -> FloatArray:
        """Return the weight of a matrix with its heads padded, float32 [in, out]."""
        if name == HEAD:
            head: FloatArray = self._model.lm_head.weight.numpy().T
            return head
        full = f"{name}.weight"
        weight = self._module(name).weight.numpy()
        return PaddedHeads({full: weight}, self.architecture)[full]

    def exchange(self, name: str, blocks: BlockMatrix) -> None:
        """Put what blocks stand for in place of the weight of a matrix."""
        weight = self._heads.strip(f"{name}.weight", blocks.dequantize())
        # Not into its memory, which may be that of the checkpoint's file.
        self._module(name).weight.data = torch.from_numpy(np.ascontiguousarray(weight))

    def head_hessian(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the sum of input · inputᵀ of the head, [in, in]."""
        normalised = [self._model.transformer.ln_f(hidden[0]) for hidden in rows]
        return sum((hidden.T @ hidden for hidden in normalised), torch.zeros(()))

    def matrices(
        self, storage_of: StorageOf, on_layer: Callable[[int, int], None]
    ) -> Iterator[tuple[str, FloatArray, Storage]]:
        """Yield the name, the weight and the storage of each matrix that is stored in blocks."""
        count = len(self.layers)
        names = [[f"h.{layer}.{part}" for part in MATRICES] for layer in range(count)]
        for done, group in enumerate([*names, [HEAD]]):
            for name in group:
                weight = self.weight(name)
                storage = storage_of(name, len(weight))
                if storage != COLUMNS:
                    yield name, weight, storage
            on_layer(min(done + 1, count), count)

    @contextmanager
    def exchanged(self, name: str, blocks: BlockMatrix) -> Iterator[None]:
        """Let the weight of a matrix be what blocks stand for, for a while."""
        before = self._module(name).weight.data
        self.exchange(name, blocks)
        try:
            yield
        finally:
            self._module(name).weight.data = before

    def hessians(self, layer: int, rows: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return, for each matrix of a layer, the sum of input · inputᵀ, padded, [in, in]."""
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


def gptq_weights(
    model: LayerwiseModel,
    windows: Sequence[TokenArray],
    storage_of: StorageOf,
    on_layer: Callable[[int, int], None],
) -> dict[str, BlockMatrix]:
    """Quantize the matrices of all layers, each for inputs that quantized layers before it give.

    Args:
        model: Its weights are exchanged for the quantized ones.
        windows: The tokens to calibrate with, int64 [tokens] each.
        storage_of: How each matrix is stored; those in columns are left out.
        on_layer: Told, after each layer, how many are done and how many there are.

    Returns:
        The blocks by the names of the matrices, whose heads are padded.
    """
    rows = [model.embed(window) for window in windows]
    blocks: dict[str, BlockMatrix] = {}
    count = model.architecture.layers
    for layer in range(count):
        for name, hessian in model.hessians(layer, rows).items():
            weight = model.weight(name)
            storage = storage_of(name, len(weight))
            if storage != COLUMNS:
                blocks[name] = gptq(torch.from_numpy(weight), hessian, storage)
                model.exchange(name, blocks[name])
        rows = [model.run_layer(layer, hidden) for hidden in rows]
        on_layer(layer + 1, count)
    weight = model.weight(HEAD)
    storage = storage_of(HEAD, len(weight))
    if storage != COLUMNS:
        matrix = torch.from_numpy(weight)
        blocks[HEAD] = gptq(matrix, model.head_hessian(rows), storage)
    return blocks
