"""Documents read from files, with errors that name the file and what is wrong in it."""

import json
from pathlib import Path
from typing import Any


def read_json(path: Path, error: type[Exception]) -> Any:
    """Returns what a file holds.

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
    """Returns the object that a file holds, an empty one if there is no such file.

    Raises:
        error: It cannot be read, or holds something else; the message names it.
    """
    if not path.is_file():
        return {}
    content = read_json(path, error)
    if not isinstance(content, dict):
        raise error(f"{path} holds no JSON object")
    return content
