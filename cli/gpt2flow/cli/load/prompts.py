"""The prompts of a run: lengths drawn from a distribution, or a file of prompts."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from gpt2flow.cli.load import LoadError

_MOST_NEW_TOKENS = 2**31 - 1

FORMS = (
    "N, fixed:N, uniform:LOW-HIGH, normal:MEAN,SD or lognormal:MEDIAN,SIGMA "
    "(a third number is the most)"
)

# More than any GPT-2 has room for; keeps the tail of a distribution finite.
_MOST = 1_000_000
# Above it, e to the power of a draw no longer fits a double.
_MOST_SIGMA = 10.0

_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_PATTERN = re.compile(
    r"(?:fixed:)?(?P<fixed>\d{1,9})"
    r"|uniform:(?P<low>\d{1,9})-(?P<high>\d{1,9})"
    rf"|(?P<kind>normal|lognormal):(?P<centre>{_NUMBER}),(?P<spread>{_NUMBER})(?:,(?P<most>\d{{1,9}}))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Lengths:
    """A distribution of lengths, in tokens.

    Attributes:
        text: As it was given.
        most: Longer draws become this; shorter ones than 1 become 1.
    """

    text: str
    most: int
    _sample: Callable[[Random], float]

    def draw(self, rng: Random) -> int:
        """Draw one length."""
        return round(max(1, min(self.most, self._sample(rng))))


def parse_lengths(text: str) -> Lengths:
    """Read a distribution.

    Raises:
        LoadError: It is none of `FORMS`, or its numbers make no sense.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise LoadError(f"must be {FORMS}")
    if match["fixed"]:
        low = high = int(match["fixed"])
    elif match["low"]:
        low, high = int(match["low"]), int(match["high"])
    else:
        return _bell(text, match["kind"], float(match["centre"]), float(match["spread"]), match)
    if not 1 <= low <= high <= _MOST:
        raise LoadError(f"lengths must be from 1 to {_MOST:,}, the lower one first")
    return Lengths(text, high, lambda rng: rng.randint(low, high))


def _bell(text: str, kind: str, centre: float, spread: float, match: re.Match[str]) -> Lengths:
    most = int(match["most"] or _MOST)
    if not (1 <= centre <= _MOST and 1 <= most <= _MOST):
        raise LoadError(f"lengths must be from 1 to {_MOST:,}")
    if kind == "normal":
        return Lengths(text, most, lambda rng: rng.gauss(centre, spread))
    if spread > _MOST_SIGMA:
        raise LoadError(f"SIGMA is the deviation of the logarithm, at most {_MOST_SIGMA:g}")
    return Lengths(text, most, lambda rng: rng.lognormvariate(math.log(centre), spread))


@dataclass(frozen=True)
class FilePrompt:
    """A prompt, and how many tokens it asks for if it says so."""

    text: str
    max_new_tokens: int | None = None


def read_prompts(path: Path) -> list[FilePrompt]:
    """Read a file; blank lines are left out.

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
