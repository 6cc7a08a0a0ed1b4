"""Reads YAML files into pydantic models, with errors that name file and field."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from gpt2flow.training.errors import TrainingError

_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_Model = TypeVar("_Model", bound=BaseModel)


def read_yaml(path: Path, model: type[_Model], error: type[TrainingError]) -> _Model:
    """Reads a YAML file.

    Args:
        path: the file.
        model: what it must hold.
        error: raised if it cannot be read, or does not hold that.
    """
    try:
        text = path.read_text(encoding="utf-8")
        # All scalars as text: `yes`, `no` and `on` are words here, and pydantic
        # reads the numbers.
        data: Any = yaml.load(text, Loader=_LOADER)  # noqa: S506 - builds no objects
        return model.model_validate(data)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as cause:
        raise error(f"{path}: {' '.join(str(cause).split())}") from cause
    except ValidationError as cause:
        raise error(f"{path}: {first_violation(cause)}") from cause


def first_violation(error: ValidationError) -> str:
    """Says in one line which field is wrong, and its value."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"]) or "(all)"
    return f"field {name}: {first['msg']}, not {first['input']!r:.80}"
