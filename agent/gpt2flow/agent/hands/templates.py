"""Templates of recordings, filled in or found on a page."""

import re
from collections.abc import Collection, Iterable, Mapping
from string import Formatter
from typing import Final
from urllib.parse import quote

_ANY: Final = "..."
_NUMBER: Final = r"\w[\w-]*\d|\d"
# Edges of a value. Chinese has no spaces, so that only Latin letters and digits go on a word.
_BEFORE: Final = r"(?<![A-Za-z0-9])(?<![0-9][.,])"
_AFTER: Final = r"(?![A-Za-z0-9]|[.,][0-9])"
_TEXT: Final = ".+?"
_SPACE = re.compile(r"\s+")


def one_line(text: str) -> str:
    """Return a text with single spaces, as a screen shows it."""
    return _SPACE.sub(" ", text).strip()


def field_names(template: str) -> set[str]:
    """Return the names of a template's fields."""
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def filled(template: str, fields: Mapping[str, str | int]) -> str:
    """Return a template with its fields.

    Raises:
        KeyError: A field is unknown.
    """
    return template.format_map(fields)


def filled_path(template: str, fields: Mapping[str, str | int]) -> str:
    """Return a path whose fields are percent-encoded.

    Raises:
        KeyError: A field is unknown.
    """
    return filled(template, {name: quote(str(value), safe="") for name, value in fields.items()})


def find(
    template: str, text: str, known: Mapping[str, str | int], reads: Collection[str] = ()
) -> dict[str, str] | None:
    """Return what a text has in place of a template's fields.

    Args:
        template: Template that all of the text has to match; `...` stands for any text.
        text: Text of a page.
        known: Values that the text has to have; other fields may have any.
        reads: Fields that only the page knows, each one word.

    Returns:
        Values of the fields that are not known; None if the text is another one.
    """
    found = re.fullmatch(_pattern(template, known, reads), one_line(text))
    return None if found is None else found.groupdict()


def find_in_lines(
    template: str,
    lines: Iterable[str],
    known: Mapping[str, str | int],
    reads: Collection[str] = (),
) -> list[dict[str, str]]:
    """Return the fields of each matching line; arguments as `find`.

    A value is never a part of a longer word or number.
    """
    pattern = re.compile(_pattern(template, known, reads, is_bounded=True))
    matches = (pattern.search(one_line(line)) for line in lines)
    return [found.groupdict() for found in matches if found is not None]


def _pattern(
    template: str,
    known: Mapping[str, str | int],
    reads: Collection[str],
    *,
    is_bounded: bool = False,
) -> str:
    """Return the regular expression of a template."""
    parts: list[str] = []
    seen: set[str] = set()
    for literal, field, _, _ in Formatter().parse(one_line(template)):
        parts.append(re.escape(literal).replace(re.escape(_ANY), ".*?"))
        if field is None:
            continue
        if field in seen:
            part = f"(?P={field})"
        elif field in known and field not in reads:
            part = re.escape(one_line(str(known[field])))
        else:
            seen.add(field)
            # What is read is a number, such as an order's.
            part = f"(?P<{field}>{_NUMBER if field in reads else _TEXT})"
        parts.append(f"{_BEFORE}{part}{_AFTER}" if is_bounded else part)
    return "".join(parts)
