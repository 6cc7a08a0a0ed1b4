"""Prompt lengths from distributions, and prompts from files."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from gpt2flow.cli.load import LoadError

_MAX_NEW_TOKENS = 2**31 - 1

LENGTH_FORMS = "N, fixed:N, uniform:LOW-HIGH, normal:MEAN,SD[,MAX] or lognormal:MEDIAN,SIGMA[,MAX]"

# Longer than any GPT-2 context; keeps the tail of a distribution finite.
_MAX_LENGTH = 1_000_000
# With a larger sigma, the exponential of a draw could overflow a double.
_MAX_SIGMA = 10.0

_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_PATTERN = re.compile(
    r"(?:fixed:)?(?P<fixed>\d{1,9})"
    r"|uniform:(?P<low>\d{1,9})-(?P<high>\d{1,9})"
    rf"|(?P<kind>normal|lognormal):(?P<center>{_NUMBER}),(?P<scale>{_NUMBER})(?:,(?P<max>\d{{1,9}}))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Lengths:
    """Distribution of lengths, in tokens.

    Attributes:
        text: Description of the distribution, as on the command line.
        max: Maximum length; draws are clipped to the range from 1 to it.
    """

    text: str
    max: int
    _sample: Callable[[Random], float]

    def draw(self, rng: Random) -> int:
        """Draw one length."""
        return round(max(1, min(self.max, self._sample(rng))))


def parse_lengths(text: str) -> Lengths:
    """Parse a distribution of lengths in one of the forms of `LENGTH_FORMS`.

    Raises:
        LoadError: The text has another form, or a number is out of range.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise LoadError(f"must be {LENGTH_FORMS}")
    if match["fixed"]:
        low = high = int(match["fixed"])
    elif match["low"]:
        low, high = int(match["low"]), int(match["high"])
    else:
        return _parse_bell_curve(text, match)
    if not 1 <= low <= high <= _MAX_LENGTH:
        raise LoadError(f"lengths must be from 1 to {_MAX_LENGTH:,}, LOW not above HIGH")
    return Lengths(text, high, lambda rng: rng.randint(low, high))


def _parse_bell_curve(text: str, match: re.Match[str]) -> Lengths:
    """Return a normal or lognormal distribution."""
    center, scale = float(match["center"]), float(match["scale"])
    maximum = int(match["max"] or _MAX_LENGTH)
    if not (1 <= center <= _MAX_LENGTH and 1 <= maximum <= _MAX_LENGTH):
        raise LoadError(f"lengths must be from 1 to {_MAX_LENGTH:,}")
    if match["kind"] == "normal":
        return Lengths(text, maximum, lambda rng: rng.gauss(center, scale))
    if scale > _MAX_SIGMA:
        raise LoadError(
            f"SIGMA, the standard deviation of the logarithm, must be at most {_MAX_SIGMA:g}"
        )
    return Lengths(text, maximum, lambda rng: rng.lognormvariate(math.log(center), scale))


@dataclass(frozen=True)
class FilePrompt:
    """Prompt from a file.

    Attributes:
        text: Text of the prompt.
        max_new_tokens: Output length in tokens; None draws it.
    """

    text: str
    max_new_tokens: int | None = None


def read_prompts(path: Path) -> list[FilePrompt]:
    """Read the prompts of a file, one per line.

    If the first line is a JSON object with a "prompt", the format is JSON Lines, otherwise
    plain text. Blank lines are skipped.

    Raises:
        LoadError: The file cannot be read or has no prompt, or a line is invalid.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LoadError(str(error)) from error
    # Not splitlines(), which splits at a form feed and at U+2028 inside a prompt too.
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
        raise LoadError(f'line {number}: must be a JSON object with a non-empty string "prompt"')
    if tokens is not None and not (type(tokens) is int and 1 <= tokens <= _MAX_NEW_TOKENS):
        raise LoadError(f'line {number}: "max_new_tokens" must be a whole number of at least 1')
    return FilePrompt(prompt, tokens)


def _json_object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_unicode(text: str) -> bool:
    """Return whether the text has no lone surrogate, which JSON allows."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
