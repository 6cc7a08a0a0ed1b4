"""Errors of the grammar compiler, as one clear line each."""

import re
from collections.abc import Callable
from typing import Final

_Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]

# Errors by how they start. Those without a rule are clear as they are.
_RULES: Final[list[_Rule]] = [
    (
        re.compile(r"NoExtension"),
        lambda _: "admits no text: nothing can satisfy all of it",
    ),
    (
        re.compile(r"Unsatisfiable schema: (.*)"),
        lambda match: f"admits no value: {match[1]}",
    ),
    (
        re.compile(r"(?:parser error: )?Too many items \(limit (\d+); ff_tokens\)"),
        lambda match: (
            f"admits no text that ends, or needs more than {match[1]} steps for its forced text"
        ),
    ),
    (
        re.compile(r"(?:parser error: )?Too many items \(limit (\d+)"),
        lambda match: f"is too complex: a token takes more than {match[1]} steps",
    ),
    (
        re.compile(r".*fuel exhausted"),
        lambda _: "is too complex to compile; shorten its longest repetitions",
    ),
    (
        re.compile(r"oneOf constraints are not supported"),
        lambda _: (
            "oneOf is supported where types or required constants tell its schemas apart; use anyOf"
        ),
    ),
    (
        re.compile(r"Resource '(.*?)' is not present"),
        lambda match: f"$ref: {match[1]!r} is not part of the schema",
    ),
    (
        re.compile(r"Pointer '(.*?)' does not exist"),
        lambda match: f"$ref: '#{match[1]}' is not part of the schema",
    ),
]
_ANCHOR: Final = re.compile(r"lookarounds not supported yet; (\w+) in regex")
_PLACE: Final = re.compile(r"at \d+\(\d+\): ")
# Lines of a grammar around its error; around a regular expression alone there is one.
_LINES: Final = re.compile(r" \d+ \| ")
_SUFFIX: Final = "<non-verbose/>"


def explain(error: str) -> str:
    """Return an error of the grammar compiler as one clear line."""
    line = " ".join(error.split()).removesuffix(_SUFFIX).strip()
    for rule, write in _RULES:
        if match := rule.match(line):
            return write(match)
    return _explain_expression(line) or line


def _explain_expression(line: str) -> str:
    """Return an error in a regular expression; empty for others."""
    _, cited, text = line.rpartition(" error: ")
    if "regex parse error: " not in line or not cited:
        if not (match := _ANCHOR.search(line)):
            return ""
        text = f"an anchor ({match[1]}) inside it is not supported"
    place = _PLACE.match(line)
    alone = " 1 | start: /" in line and " 2 | " not in line
    what = f"invalid regular expression: {_LINES.split(text, maxsplit=1)[0]}"
    return what if alone or place is None else place[0] + what
