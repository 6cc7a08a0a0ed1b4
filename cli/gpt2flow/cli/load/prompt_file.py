"""Prompts of a file: one a line, or JSON lines."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2flow.cli.load.errors import LoadError

_MOST_NEW_TOKENS = 2**31 - 1


@dataclass(frozen=True)
class FilePrompt:
    """A prompt, and how many tokens it asks for if it says so."""

    text: str
    max_new_tokens: int | None = None


def read_prompts(path: Path) -> list[FilePrompt]:
    """Reads a file; blank lines are left out.

    It is JSON lines if the first line is a JSON object with a "prompt".

    Raises:
        LoadError: It cannot be read, holds no prompt, or a line is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LoadError(str(error)) from error
    # Not splitlines(): a prompt may hold a form feed or U+2028.
    lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise LoadError("the file holds no prompt")
    if "prompt" not in _json_object(lines[0][1]):
        return [FilePrompt(line.removesuffix("\r")) for _, line in lines]
    return [_json_prompt(i, line) for i, line in lines]


def _json_prompt(number: int, line: str) -> FilePrompt:
    value = _json_object(line)
    prompt, tokens = value.get("prompt"), value.get("max_new_tokens")
    if not (isinstance(prompt, str) and prompt and _is_unicode(prompt)):
        raise LoadError(f'line {number}: must be a JSON object with a text "prompt"')
    if tokens is not None and not (type(tokens) is int and 1 <= tokens <= _MOST_NEW_TOKENS):
        raise LoadError(f'line {number}: "max_new_tokens" must be a whole number above 0')
    return FilePrompt(prompt, tokens)


def _json_object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_unicode(text: str) -> bool:
    """Whether it can be sent: JSON can write half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
