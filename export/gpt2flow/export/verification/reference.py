"""Reference model: Optimum's standard fp32 graph, the oracle of every check."""

import ctypes
import errno
import gc
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
# Tokens of Optimum's example, by which it traces the model: as many again are in its past.
_TRACED_TOKENS: Final = 16


def export_reference(source: Checkpoint, directory: Path, *, lean: bool = False) -> None:
    """Write Optimum's export of a checkpoint: the graph and its accompanying files.

    Args:
        source: Checkpoint to export.
        directory: Directory of the export.
        lean: Whether to leave out what only other programs need of the graph; it computes the
            same, and takes less time and memory to write.

    Raises:
        CheckpointError: transformers refuses its generation config.
        ExportError: transformers cannot load the checkpoint, or Optimum cannot export it.
        OSError: The disk is full.
    """
    # Imports torch, transformers and Optimum, which takes seconds.
    from optimum.exporters.onnx import onnx_export_from_model  # noqa: PLC0415

    from gpt2flow.export.checkpoint.torch_model import (  # noqa: PLC0415
        load_torch_model,
        quiet_libraries,
        set_generation_config,
    )

    with quiet_libraries():
        try:
            model = load_torch_model(source)
            if not lean:
                set_generation_config(model, source)
            onnx_export_from_model(
                model,
                directory,
                task=_TASK,
                do_validation=False,
                # Folded, the head would be a second copy of the tied embeddings.
                do_constant_folding=not lean,
                no_post_process=lean,
                sequence_length=min(_TRACED_TOKENS, source.architecture.context_length // 2),
            )
            del model
        except Exception as error:
            if isinstance(error, ExportError):
                raise
            if isinstance(error, OSError) and error.errno in _DISK_FULL:
                raise
            raise ExportError(
                f"Optimum cannot export {source.directory}: {first_line(error)}"
            ) from error
    _return_memory()


class ReferenceModel:
    """Optimum's graph, run on whole windows without a past."""

    def __init__(self, directory: Path, architecture: Architecture) -> None:
        self._layers = architecture.layers
        self._session = open_session(directory / MODEL_NAME)
        _return_memory()
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


def _return_memory() -> None:
    """Return freed memory to the system, where the C library can.

    It keeps what a graph's writer and reader have freed, some copies of the weights.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def open_session(model: Path) -> onnxruntime.InferenceSession:
    """Open a model on the CPU, logging errors only."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
