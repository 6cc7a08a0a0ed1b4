"""Regular expressions of constraints: what the dialect lacks, and what replaces it."""

import re
from collections.abc import Mapping
from typing import Final

from gpt2flow.server.errors import GrammarError

# Formats that the grammar compiler enforces; any other format is an annotation.
FORMATS: Final = frozenset({"duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"})

_YEAR: Final = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP_YEAR: Final = (
    "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
)
_DATE: Final = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    f"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_TIME: Final = (
    "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:[.][0-9]{1,6})?"
    "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
# Formats whose compiler admits dates that do not exist, such as 29 February of each year.
DATES: Final[Mapping[str, str]] = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
}

# Constructs of other dialects, by how they start.
_UNSUPPORTED: Final[Mapping[str, str]] = {
    "(?=": "look-ahead",
    "(?!": "look-ahead",
    "(?<=": "look-behind",
    "(?<!": "look-behind",
    "(?>": "an atomic group",
    "(?(": "a conditional",
    "(?#": "a comment",
    "(?P=": "a backreference",
    "\\b": "a word boundary",
    "\\B": "a word boundary",
    "\\k": "a backreference",
    **{f"\\{digit}": "a backreference" for digit in range(1, 10)},
}
# An escape, the start or end of a class of characters, or a construct.
_TOKENS: Final = re.compile(r"\\.|\[\^?\]?|\]|\(\?(?:<[=!]|P=|[=!>(#])", re.DOTALL)

# Look-aheads that Pydantic writes for the digits of a Decimal, up to version 2.13. The first
# requires a digit, since nothing else follows than signs, points and digits.
_DECIMAL: Final = re.compile(r"\^\(\?!\^\[-\+\.\]\*\$\)\[\+-\]\?0\*(.*)", re.DOTALL)
_BOTH: Final = re.compile(
    r"\(\?:\\d\{0,(\d+)\}\|\(\?=\[\\d\.\]\{1,(\d+)\}0\*\$\)\\d\{0,\1\}\\\.\\d\{0,(\d+)\}0\*\$\)"
)
_DIGITS: Final = re.compile(
    r"\(\?:\\d\{0,(\d+)\}\|\(\?=\[\\d\.\]\{1,(\d+)\}0\*\$\)\\d\*\\\.\\d\*0\*\$\)"
)
_PLACES: Final = re.compile(r"\\d\*\\\.\?\\d\{0,(\d+)\}0\*\$")
_ANY: Final = r"\d*\.?\d*$"


def check_pattern(pattern: str) -> None:
    """Check a regular expression for what the dialect lacks.

    Raises:
        GrammarError: It has such a construct, which the message names.
    """
    depth = 0  # Of classes of characters, in which constructs are characters.
    for match in _TOKENS.finditer(pattern):
        if match[0].startswith("["):
            depth += 1
        elif match[0] == "]":
            depth = max(depth - 1, 0)
        elif not depth and (name := _UNSUPPORTED.get(match[0])):
            raise GrammarError(
                f"{name}, {match[0]}, is not supported in a regular expression: {_cut(pattern)}"
            )


def translate_pattern(pattern: str) -> list[str]:
    """Return patterns that a text matches together as it matches `pattern`.

    Raises:
        GrammarError: The pattern has a construct that the dialect lacks.
    """
    if (match := _DECIMAL.fullmatch(pattern)) and (body := _decimal(match[1])):
        return [*(f"^[+-]?0*{each}$" for each in body), "[0-9]"]
    check_pattern(pattern)
    return [pattern]


def _decimal(body: str) -> list[str]:
    """Return the patterns of a Decimal's digits, without look-ahead; none if unknown."""
    if body == _ANY:
        return ["[0-9]*[.]?[0-9]*"]
    if match := _PLACES.fullmatch(body):
        return [f"[0-9]*(?:[.][0-9]{{0,{match[1]}}}0*)?"]
    if match := _BOTH.fullmatch(body):
        whole, most = int(match[1]), int(match[2]) - 1
        places = min(int(match[3]), most)
        return [f"[0-9]{{0,{whole}}}(?:[.][0-9]{{0,{places}}}0*)?"]
    if match := _DIGITS.fullmatch(body):
        most = int(match[1])
        return [
            f"(?:[0-9]{{0,{most}}}|[0-9]*[.][0-9]*)",
            f"(?:[0-9]{{0,{most}}}|[0-9.]{{1,{match[2]}}}0*)",
        ]
    return []


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"
