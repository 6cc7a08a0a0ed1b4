"""Optimum's standard fp32 graph, which the profile `reference` writes."""

import ctypes
import errno
import gc
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.checkpoint.checkpoint import Checkpoint
from gpt2flow.export.checkpoint.vocabulary import SETTINGS_NAME
from gpt2flow.export.errors import (
    CheckpointError,
    ExportError,
    MissingPackageError,
    first_line,
    shorten,
)
from gpt2flow.export.graph.cache import PARTS
from gpt2flow.files.documents import read_object
from gpt2flow.server.bundle.manifest import MODEL_NAME

PACKAGE: Final = "optimum-onnx"
"""Package that writes the graph."""

_ERRORS_ONLY: Final = 3
_TASK: Final = "text-generation-with-past"
# Errors of the disk rather than of the checkpoint.
_DISK_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# The first transformers that Optimum's exporter does not take.
_TOO_NEW: Final = (4, 58)
_MISSING: Final = (
    f"profile reference needs the package {PACKAGE!r}, which takes transformers before 4.58: "
    "pip install 'gpt2flow[reference]' in an environment of its own"
)
_TEMPLATE_NAME: Final = re.compile(r"[\w-]+")
# Tokens of Optimum's example, by which it traces the model: as many again are in its past.
_TRACED_TOKENS: Final = 16


def require_optimum() -> None:
    """Check that Optimum's exporter is installed.

    Raises:
        MissingPackageError: It is not; the message says how to install it.
    """
    try:
        version(PACKAGE)
    except PackageNotFoundError as error:
        raise MissingPackageError(_MISSING) from error
    found = version("transformers")
    if tuple(map(int, found.split(".")[:2])) >= _TOO_NEW:
        raise MissingPackageError(f"{_MISSING}; this one has transformers {found}")


def export_optimum_graph(source: Checkpoint, directory: Path) -> None:
    """Write Optimum's export of a checkpoint: the graph and its accompanying files.

    Args:
        source: Checkpoint to export.
        directory: Directory of the export.

    Raises:
        CheckpointError: A chat template is named like a path, or transformers refuses the
            generation config.
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

    _check_template_names(source.directory / SETTINGS_NAME)
    with quiet_libraries():
        try:
            model = load_torch_model(source)
            set_generation_config(model, source)
            onnx_export_from_model(
                model,
                directory,
                task=_TASK,
                do_validation=False,
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


def _check_template_names(settings: Path) -> None:
    """Check that no chat template is named like a path.

    transformers before 5.10 writes each to a file of its name (CVE-2026-9856).
    """
    templates = read_object(settings, CheckpointError).get("chat_template")
    if isinstance(templates, list):
        templates = [each.get("name") if isinstance(each, dict) else each for each in templates]
    elif not isinstance(templates, dict):
        return
    for name in templates:
        if not _TEMPLATE_NAME.fullmatch(str(name)):
            raise CheckpointError(
                f"{settings}: chat_template has the name {shorten(name)}; a name has letters, "
                "digits, - and _"
            )


class OptimumGraph:
    """Optimum's graph, run on whole windows without a past."""

    def __init__(self, directory: Path, architecture: Architecture) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(
            directory / MODEL_NAME, options, providers=["CPUExecutionProvider"]
        )
        empty = np.zeros((1, architecture.heads, 0, architecture.head_size), np.float32)
        self._past = {
            f"past_key_values.{layer}.{part}": empty
            for layer in range(architecture.layers)
            for part in PARTS
        }

    def logits(self, tokens: TokenArray) -> FloatArray:
        """Return the logits after each token, float32 [tokens, vocabulary]."""
        row = tokens[np.newaxis]
        inputs: dict[str, Any] = {
            "input_ids": row,
            "attention_mask": np.ones_like(row),
            "position_ids": np.arange(row.size)[np.newaxis],
            **self._past,
        }
        logits: FloatArray = self._session.run(["logits"], inputs)[0][0]
        return logits


def _return_memory() -> None:
    """Return freed memory to the system, where the C library can.

    It keeps what a graph's writer has freed, some copies of the weights.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
