"""Reference model: Optimum's standard fp32 graph, the oracle of every check."""

import errno
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.checkpoint.checkpoint import Checkpoint
from gpt2flow.export.errors import ExportError, first_line
from gpt2flow.export.graph.cache import PARTS
from gpt2flow.server.bundle.manifest import MODEL_NAME

_ERRORS_ONLY: Final = 3
_TASK: Final = "text-generation-with-past"
# Errors of the disk rather than of the checkpoint.
_DISK_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def export_reference(source: Checkpoint, directory: Path) -> None:
    """Write Optimum's export of a checkpoint: the graph and its accompanying files.

    Raises:
        ExportError: transformers cannot load the checkpoint, or Optimum cannot export it.
        OSError: The disk is full.
    """
    # Imports torch, transformers and Optimum, which takes seconds.
    from optimum.exporters.onnx import onnx_export_from_model  # noqa: PLC0415

    from gpt2flow.export.checkpoint.torch_model import (  # noqa: PLC0415
        load_torch_model,
        quiet_libraries,
    )

    with quiet_libraries():
        try:
            onnx_export_from_model(
                load_torch_model(source), directory, task=_TASK, do_validation=False
            )
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _DISK_FULL:
                raise
            raise ExportError(
                f"Optimum cannot export {source.directory}: {first_line(error)}"
            ) from error


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
        """Return the logits after each token, float32 [tokens, vocabulary]."""
        logits: FloatArray = self._run(["logits"], tokens)[0][0]
        return logits

    def keys_and_values(self, tokens: TokenArray) -> list[tuple[FloatArray, FloatArray]]:
        """Return keys and values per layer, float32 [heads, tokens, head_size] each."""
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


def open_session(model: Path) -> onnxruntime.InferenceSession:
    """Open a model on the CPU, logging errors only."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
