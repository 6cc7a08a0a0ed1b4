"""A bundle's graph run as the server runs it: in slots of one KV cache, updated in place."""

from pathlib import Path

import numpy as np
import onnxruntime

from gpt2flow.export.architecture import Architecture
from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.head_padding import padded_head_size
from gpt2flow.export.sessions import open_session


class ServedModel:
    """Prefill of one slot, and decode steps of the first slots together."""

    def __init__(self, model: Path, architecture: Architecture, slots: int) -> None:
        self._session = open_session(model)
        self._capacity = architecture.context_length
        shape = (slots, architecture.heads, self._capacity, padded_head_size(architecture))
        self._cache = {
            f"{layer}.{part}": np.zeros(shape, np.float32)
            for layer in range(architecture.layers)
            for part in ("key", "value")
        }

    def prefill(self, slot: int, tokens: TokenArray) -> FloatArray:
        """Starts a slot anew; returns the logits after each token, [tokens, vocabulary]."""
        return self.run(slice(slot, slot + 1), tokens[np.newaxis], np.zeros(1, np.int64))

    def decode(self, tokens: TokenArray, lengths: TokenArray) -> FloatArray:
        """Adds one token to each of the first slots.

        Args:
            tokens: int64 [rows], the new token of each slot.
            lengths: int64 [rows], how many tokens each slot holds already.

        Returns:
            The logits after each new token, float32 [rows, vocabulary].
        """
        return self.run(slice(0, len(tokens)), tokens[:, np.newaxis], lengths)

    def run(self, slots: slice, tokens: TokenArray, past: TokenArray) -> FloatArray:
        """Adds tokens to slots, one to each of several or several to one.

        Args:
            slots: Which slots.
            tokens: int64 [rows, tokens], the new tokens.
            past: int64 [rows], how many tokens each slot holds already.

        Returns:
            The logits after each new token, float32 [rows · tokens, vocabulary].

        Raises:
            ValueError: A slot would hold more than the context, which the graph does not check.
        """
        rows, new = tokens.shape
        total = past + new
        if total.max() > self._capacity:
            raise ValueError(f"{total.max()} tokens do not fit into a slot of {self._capacity}")
        inputs = {
            "input_ids": np.ascontiguousarray(tokens),
            "position_ids": past[:, np.newaxis] + np.arange(new),
            "seqlens_k": (total - 1).astype(np.int32),
            "total_sequence_length": np.array(total.max(), np.int32),
            "logits_rows": np.arange(rows * new),
        }
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        for name, array in self._cache.items():
            # Rows of one buffer lie together, so that a view of them is bound without a copy.
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array[slots])
            binding.bind_ortvalue_input(f"past_key_values.{name}", value)
            binding.bind_ortvalue_output(f"present.{name}", value)
        binding.bind_output("logits")
        self._session.run_with_iobinding(binding)
        logits: FloatArray = binding.get_outputs()[-1].numpy()
        return logits
