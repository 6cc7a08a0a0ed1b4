"""Serving graph behind the server's runner, with NumPy arrays on both sides."""

from pathlib import Path

import numpy as np
from transformers import GPT2LMHeadModel

from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.server.bundle.model_runner import ModelRunner


def weights_of(model: GPT2LMHeadModel) -> dict[str, FloatArray]:
    """Return the weights of a model by the names of `Architecture.weight_shapes`."""
    state = model.state_dict()
    return {name.removeprefix("transformer."): tensor.numpy() for name, tensor in state.items()}


class ServedGraph(ModelRunner):
    """Runner on one thread that returns the logits after every token."""

    def __init__(self, model: Path, architecture: Architecture, slots: int) -> None:
        super().__init__(model, slots=slots, capacity=architecture.context_length, threads=1)

    def prefill(self, slot: int, tokens: TokenArray) -> FloatArray:
        """Overwrite a slot; return logits [tokens, vocabulary]."""
        return self.extend(slot, tokens, past=0)

    def extend(self, slot: int, tokens: TokenArray, past: int) -> FloatArray:
        """Append tokens to a slot; return logits [tokens, vocabulary]."""
        logits, _ = self.run_chunk(slot, tokens.tolist(), past, range(len(tokens)))
        return logits

    def step(self, tokens: TokenArray, lengths: TokenArray) -> FloatArray:
        """Append a token per slot; return logits [slots, vocabulary]."""
        logits, _ = self.decode(tokens.tolist(), lengths.tolist())
        copied: FloatArray = np.array(logits)
        return copied
