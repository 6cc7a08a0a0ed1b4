"""Documents read from files, with errors that name the file and what is wrong in it."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

_Model = TypeVar("_Model", bound=BaseModel)


def read_json(path: Path, error: type[Exception]) -> Any:
    """Return what a file holds.

    Raises:
        error: It cannot be read, or holds no JSON; the message names it.
    """
    try:
        return json.loads(path.read_bytes())
    except RecursionError as cause:
        raise error(f"{path} cannot be read as JSON: nested too deeply") from cause
    except (OSError, ValueError) as cause:
        raise error(f"{path} cannot be read as JSON: {cause}") from cause


def read_object(path: Path, error: type[Exception]) -> dict[str, Any]:
    """Return the object that a file holds, an empty one if there is no such file.

    Raises:
        error: It cannot be read, or holds something else; the message names it.
    """
    if not path.is_file():
        return {}
    content = read_json(path, error)
    if not isinstance(content, dict):
        raise error(f"{path} holds no JSON object")
    return content


def read_yaml(path: Path, model: type[_Model], error: type[Exception]) -> _Model:
    """Read a YAML file.

    Args:
        path: the file.
        model: what it must hold.
        error: raised if it cannot be read, or does not hold that.
    """
    import yaml  # noqa: PLC0415 - export reads JSON alone

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        text = path.read_text(encoding="utf-8")
        # All scalars as text: `yes`, `no` and `on` are words here, and pydantic
        # reads the numbers.
        data: Any = yaml.load(text, Loader=loader)  # noqa: S506 - builds no objects
        return model.model_validate(data)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as cause:
        raise error(f"{path}: {' '.join(str(cause).split())}") from cause
    except ValidationError as cause:
        raise error(f"{path}: {first_violation(cause)}") from cause


def first_violation(error: ValidationError) -> str:
    """Say in one line which field is wrong, and its value."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"]) or "(all)"
    return f"field {name}: {first['msg']}, not {first['input']!r:.80}"
