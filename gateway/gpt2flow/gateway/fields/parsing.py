"""Bodies of requests, as fields or as the first invalid one."""

import difflib
from collections.abc import Sequence
from typing import Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gpt2flow.files.documents import first_error
from gpt2flow.gateway.errors import ApiError, invalid_field
from gpt2flow.gateway.fields.generation import REFUSED, GenerationFields

_Fields = TypeVar("_Fields", bound=GenerationFields)

# The message of these says all; the value would be the whole object.
_WITHOUT_VALUE: Final = {"message", "prompt", "token_id", "too_short", "too_long"}
_SHOWN: Final = 60


def parse_fields(kind: type[_Fields], body: bytes) -> _Fields:
    """Parse the body of a request.

    Args:
        kind: Class of the fields.
        body: Bytes of the body.

    Raises:
        ApiError: The body is not JSON, or a field is unknown or invalid.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _refuse(kind, first_error(error)) from None


def _refuse(kind: type[GenerationFields], error: ErrorDetails) -> ApiError:
    path, name = field_path(error["loc"]), error["type"]
    if name == "json_invalid":
        return ApiError(400, f"the body is not JSON: {error['msg']}")
    if name == "model_type" and not path:
        return ApiError(400, "the body is not a JSON object")
    if name == "extra_forbidden":
        return invalid_field(path, f"unknown field{_hint(kind, path)}", "unknown_parameter")
    if name == "none_required" and path in REFUSED:
        return invalid_field(path, f"is not supported: {REFUSED[path]}", "unsupported_parameter")
    if name == "missing":
        return invalid_field(path, "is missing", "missing_required_parameter")
    rule = error["msg"][:1].lower() + error["msg"][1:]
    value = "" if name in _WITHOUT_VALUE else f", not {_show(error['input'])}"
    return invalid_field(path, rule + value)


def field_path(parts: Sequence[str | int]) -> str:
    """Return the path of a field, such as `messages[0].content`."""
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith("<"):
            path += f".{part}" if path else part
    return path


def _hint(kind: type[GenerationFields], path: str) -> str:
    near = difflib.get_close_matches(path, kind.model_fields, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
