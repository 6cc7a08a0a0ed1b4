"""Export of a trained GPT-2 to a verified ONNX bundle.

Exports are imported lazily, so that inspecting a bundle loads neither torch nor onnx.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt2flow.export.errors import (
        AdapterError,
        CheckpointError,
        EvaluationTextError,
        ExportError,
        HubError,
        InputError,
        MissingPackageError,
        OutputError,
        QualityGateError,
    )
    from gpt2flow.export.inspect import Inspection, inspect_bundle
    from gpt2flow.export.pipeline import export_bundle
    from gpt2flow.export.quantization.plan import ProgressCallback
    from gpt2flow.export.recipe import KvCache, Method, Profile
    from gpt2flow.export.restore import restore_checkpoint
    from gpt2flow.export.sources.hub import Hub
    from gpt2flow.export.sources.locate import read_token

__all__ = [
    "AdapterError",
    "CheckpointError",
    "EvaluationTextError",
    "ExportError",
    "Hub",
    "HubError",
    "InputError",
    "Inspection",
    "KvCache",
    "Method",
    "MissingPackageError",
    "OutputError",
    "Profile",
    "ProgressCallback",
    "QualityGateError",
    "export_bundle",
    "inspect_bundle",
    "read_token",
    "restore_checkpoint",
]

_MODULES = {
    "Hub": "sources.hub",
    "Inspection": "inspect",
    "KvCache": "recipe",
    "Method": "recipe",
    "Profile": "recipe",
    "ProgressCallback": "quantization.plan",
    "export_bundle": "pipeline",
    "inspect_bundle": "inspect",
    "read_token": "sources.locate",
    "restore_checkpoint": "restore",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
