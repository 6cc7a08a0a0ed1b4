"""JSON and YAML documents, read with errors that name file and field."""

import json
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

# The input of these is the whole document, or says no more than the message.
_WITHOUT_VALUE: Final = {"missing", "extra_forbidden", "json_invalid", "model_type"}

_Model = TypeVar("_Model", bound=BaseModel)


class StrictModel(BaseModel):
    """Base class of documents and their parts: frozen, without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_json(path: Path, error: type[Exception]) -> Any:
    """Return the content of a JSON file.

    Args:
        path: Path of the file.
        error: Class of the error to raise.

    Raises:
        error: The file is unreadable or not JSON; the message names it.
    """
    try:
        return json.loads(path.read_bytes())
    except RecursionError as cause:
        raise error(f"{path} cannot be read as JSON: nested too deeply") from cause
    except (OSError, ValueError) as cause:
        raise error(f"{path} cannot be read as JSON: {cause}") from cause


def read_object(path: Path, error: type[Exception]) -> dict[str, Any]:
    """Return the JSON object in a file.

    Args:
        path: Path of the file; if it does not exist, the object is empty.
        error: Class of the error to raise.

    Raises:
        error: The file is unreadable, or not a JSON object; the message names it.
    """
    if not path.is_file():
        return {}
    content = read_json(path, error)
    if not isinstance(content, dict):
        raise error(f"{path} does not hold a JSON object")
    return content


def read_yaml(
    path: Path, model: type[_Model], error: type[Exception], *, typed: bool = False
) -> _Model:
    """Read a YAML file and validate it.

    Args:
        path: Path of the file.
        model: Pydantic model of the content.
        error: Class of the error to raise.
        typed: Whether YAML decides the types of scalars. Otherwise they are text, so that `yes`,
            `no` and `on` are words, and pydantic parses numbers.

    Raises:
        error: The file is unreadable or invalid; the message names the file and the field.
    """
    import yaml  # noqa: PLC0415 - not needed by export

    # libyaml is ten times as fast as the loaders in Python; PyYAML may have been built without.
    name = "SafeLoader" if typed else "BaseLoader"
    loader = getattr(yaml, f"C{name}", getattr(yaml, name))
    try:
        text = path.read_text(encoding="utf-8")
        data: Any = yaml.load(text, Loader=loader)  # noqa: S506 - neither builds objects
        return model.model_validate(data)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as cause:
        raise error(f"{path}: {' '.join(str(cause).split())}") from cause
    except ValidationError as cause:
        raise error(f"{path}: {first_violation(cause)}") from cause


def first_violation(error: ValidationError) -> str:
    """Return a one-line message about an invalid field, with its value."""
    first = first_error(error)
    name = ".".join(str(part) for part in first["loc"])
    message = f"field {name}: {first['msg']}" if name else first["msg"]
    if first["type"] in _WITHOUT_VALUE:
        return message
    return f"{message}, not {first['input']!r:.80}"


def first_error(error: ValidationError) -> ErrorDetails:
    """Return the error of an unknown field, or else the first one.

    A misspelt field may also be missing; that it is unknown says more.
    """
    errors = error.errors()
    return next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
