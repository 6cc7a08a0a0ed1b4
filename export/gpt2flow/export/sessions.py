"""onnxruntime sessions of the export."""

from pathlib import Path
from typing import Final

import onnxruntime

_ERRORS_ONLY: Final = 3


def open_session(model: Path) -> onnxruntime.InferenceSession:
    """Opens a model on the CPU; nothing but errors is logged."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
