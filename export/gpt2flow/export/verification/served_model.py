"""Serving graph, run as the server runs it."""

from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime

from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.verification.reference import open_session

_PAST: Final = "past_key_values."
_DTYPES: Final = {"tensor(float)": np.float32, "tensor(int8)": np.int8}


class ServedModel:
    """Serving graph with a KV cache of several slots, updated in place."""

    def __init__(
        self, model: Path, architecture: Architecture, slots: int, capacity: int | None = None
    ) -> None:
        """Open a graph and allocate a cache for it.

        Args:
            model: Path of the graph.
            architecture: Architecture of the model.
            slots: Number of sequences in the cache.
            capacity: Most tokens per sequence; None for the context length.
        """
        self._session = open_session(model)
        self._capacity = capacity or architecture.context_length
        self._cache = {
            node.name.removeprefix(_PAST): np.zeros(
                (slots, architecture.heads, self._capacity, node.shape[-1]), _DTYPES[node.type]
            )
            for node in self._session.get_inputs()
            if node.name.startswith(_PAST)
        }

    def prefill(self, slot: int, tokens: TokenArray) -> FloatArray:
        """Overwrite a slot; return the logits after each token, [tokens, vocabulary]."""
        return self.run(slice(slot, slot + 1), tokens[np.newaxis], np.zeros(1, np.int64))

    def decode(self, tokens: TokenArray, lengths: TokenArray) -> FloatArray:
        """Append one token to each of the first slots.

        Args:
            tokens: int64 [rows], the new token of each slot.
            lengths: int64 [rows], the number of tokens that each slot holds already.

        Returns:
            The logits after each new token, float32 [rows, vocabulary].
        """
        return self.run(slice(0, len(tokens)), tokens[:, np.newaxis], lengths)

    def run(self, slots: slice, tokens: TokenArray, past: TokenArray) -> FloatArray:
        """Append tokens to slots.

        The tokens are either one for each of several slots, or several for one slot.

        Args:
            slots: Slots to append to.
            tokens: int64 [rows, tokens], the new tokens.
            past: int64 [rows], the number of tokens that each slot holds already.

        Returns:
            The logits after each new token, float32 [rows · tokens, vocabulary].

        Raises:
            ValueError: A slot would exceed its capacity, which the graph does not check.
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
            "logits_ids": np.empty(0, np.int64),
        }
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        for name, array in self._cache.items():
            # A slice of slots is contiguous, so it is bound as a view without a copy.
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array[slots])
            binding.bind_ortvalue_input(f"{_PAST}{name}", value)
            binding.bind_ortvalue_output(f"present.{name}", value)
        binding.bind_output("logits")
        self._session.run_with_iobinding(binding)
        logits: FloatArray = binding.get_outputs()[-1].numpy()
        return logits
