"""Serving graph behind the server's runner, with NumPy arrays on both sides."""

from pathlib import Path

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

    def __init__(
        self, model: Path, architecture: Architecture, slots: int, kernels: str | None = None
    ) -> None:
        capacity = architecture.context_length
        super().__init__(model, slots=slots, capacity=capacity, threads=1, kernels=kernels)

    def prefill(self, slot: int, tokens: TokenArray) -> FloatArray:
        """Overwrite a slot; return logits [tokens, vocabulary]."""
        return self.extend(slot, tokens, past=0)

    def extend(self, slot: int, tokens: TokenArray, past: int) -> FloatArray:
        """Append tokens to a slot; return logits [tokens, vocabulary]."""
        count = len(tokens)
        positions = range(past, past + count)
        return self.run(tokens.tolist(), [slot] * count, positions, range(count))

    def step(self, tokens: TokenArray, lengths: TokenArray) -> FloatArray:
        """Append a token per slot; return logits [slots, vocabulary]."""
        slots = range(len(tokens))
        return self.run(tokens.tolist(), slots, lengths.tolist(), slots)


def by_position(cached: FloatArray) -> FloatArray:
    """Return keys or values of a cache as [slots, heads, capacity, head_size]."""
    if cached.ndim == 4:
        return cached
    slots, heads, blocks, groups, positions, channels = cached.shape
    by_channel = cached.swapaxes(3, 4)
    return by_channel.reshape(slots, heads, blocks * positions, groups * channels)
