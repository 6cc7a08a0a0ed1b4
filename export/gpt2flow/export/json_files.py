"""The JSON files of a checkpoint."""

import json
from pathlib import Path
from typing import Any

from gpt2flow.export.errors import CheckpointError, one_line


def read_json(path: Path) -> Any:
    """Returns what a file holds.

    Raises:
        CheckpointError: It cannot be read, or holds no JSON; the message names it.
    """
    try:
        return json.loads(path.read_bytes())
    except RecursionError as error:
        raise CheckpointError(f"{path} cannot be read as JSON: nested too deeply") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {one_line(error)}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Returns the object that a file holds, an empty one if there is no such file.

    Raises:
        CheckpointError: It cannot be read, or holds something else; the message names it.
    """
    if not path.is_file():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return content
