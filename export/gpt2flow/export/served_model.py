"""A bundle's graph run as the server runs it: in slots of one KV cache, updated in place."""

from pathlib import Path

import numpy as np
import onnxruntime

from gpt2flow.export.architecture import Architecture
from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.head_padding import padded_head_size
from gpt2flow.export.sessions import open_session


class ServedModel:
    """Prefill of one slot, and decode steps of the first slots together.

    The graph trusts its caller: a row must never grow over the capacity of its slot.
    """

    def __init__(self, model: Path, architecture: Architecture, slots: int) -> None:
        self._session = open_session(model)
        shape = (slots, architecture.heads, architecture.context_length)
        self._cache = {
            f"{layer}.{part}": np.zeros((*shape, padded_head_size(architecture)), np.float32)
            for layer in range(architecture.layers)
            for part in ("key", "value")
        }

    def prefill(self, slot: int, tokens: TokenArray) -> FloatArray:
        """Starts a slot anew; returns the logits after each token, [tokens, vocabulary]."""
        return self._run(slice(slot, slot + 1), tokens[np.newaxis], np.zeros(1, np.int64))

    def decode(self, tokens: TokenArray, lengths: TokenArray) -> FloatArray:
        """Adds one token to each of the first slots.

        Args:
            tokens: int64 [rows], the new token of each slot.
            lengths: int64 [rows], how many tokens each slot holds already.

        Returns:
            The logits after each new token, float32 [rows, vocabulary].
        """
        return self._run(slice(0, len(tokens)), tokens[:, np.newaxis], lengths)

    def _run(self, slots: slice, tokens: TokenArray, past: TokenArray) -> FloatArray:
        rows, new = tokens.shape
        total = past + new
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
