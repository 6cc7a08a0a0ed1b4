"""The reference graph, run on whole texts."""

from pathlib import Path
from typing import Any

import numpy as np

from gpt2flow.export.architecture import Architecture
from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.cache import PARTS
from gpt2flow.export.sessions import open_session
from gpt2flow.server.bundle.manifest import MODEL_NAME


class ReferenceModel:
    """Optimum's graph, run on whole windows without a past."""

    def __init__(self, directory: Path, architecture: Architecture) -> None:
        self._layers = architecture.layers
        self._session = open_session(directory / MODEL_NAME)
        empty = np.zeros((1, architecture.heads, 0, architecture.head_size), np.float32)
        self._past = {
            f"past_key_values.{layer}.{part}": empty
            for layer in range(architecture.layers)
            for part in PARTS
        }

    def logits(self, tokens: TokenArray) -> FloatArray:
        """Returns the logits after each of a row of tokens, float32 [tokens, vocabulary]."""
        logits: FloatArray = self._run(["logits"], tokens)[0][0]
        return logits

    def keys_and_values(self, tokens: TokenArray) -> list[tuple[FloatArray, FloatArray]]:
        """Returns keys and values of each layer, float32 [heads, tokens, head_size] each."""
        names = [f"present.{layer}.{part}" for layer in range(self._layers) for part in PARTS]
        arrays = [array[0] for array in self._run(names, tokens)]
        return list(zip(arrays[::2], arrays[1::2], strict=True))

    def _run(self, outputs: list[str], tokens: TokenArray) -> list[FloatArray]:
        row = tokens[np.newaxis]
        inputs: dict[str, Any] = {
            "input_ids": row,
            "attention_mask": np.ones_like(row),
            "position_ids": np.arange(row.size)[np.newaxis],
            **self._past,
        }
        arrays: list[FloatArray] = self._session.run(outputs, inputs)
        return arrays
