"""Places in a JSON document: pointers, and errors that name them."""

from typing import Any, Final
from urllib.parse import unquote

from gpt2flow.server.errors import GrammarError

Path = tuple[str | int, ...]

_MAX_LENGTH: Final = 120


def split_pointer(reference: str) -> Path:
    """Return the steps of a reference such as `#/$defs/Name`."""
    steps = unquote(reference).split("/")[1:]
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in steps)


def write_pointer(path: Path) -> str:
    """Return a reference to a place; a long one keeps its end."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    pointer = "".join(f"/{step}" for step in steps)
    return f"#{pointer}" if len(pointer) <= _MAX_LENGTH else f"#…{pointer[-_MAX_LENGTH:]}"


def place_error(path: Path, text: str) -> GrammarError:
    """Return an error that names a place in a schema."""
    return GrammarError(f"{write_pointer(path)}: {text}")


def look_up(document: Any, path: Path) -> Any:
    """Return the value at a place of a document, or None."""
    value = document
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and str(step).isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def put(document: dict[str, Any], path: Path, value: Any) -> None:
    """Put a value at a place of a document that is empty.

    What the way to it lacks is made of objects.
    """
    holder: Any = document
    for step in path[:-1]:
        is_list = isinstance(holder, list)
        holder = holder[int(step)] if is_list else holder.setdefault(str(step), {})
    if isinstance(holder, dict):
        holder[str(path[-1])] = value
