"""Templates of recordings, filled in or found on a page."""

import re
from collections.abc import Collection, Iterable, Mapping
from string import Formatter
from typing import Final
from urllib.parse import quote

_ANY: Final = "..."
_WORD: Final = r"[\w-]+"
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
) -> dict[str, str] | None:
    """Return the fields of the first line that has a template."""
    pattern = re.compile(_pattern(template, known, reads))
    for line in lines:
        found = pattern.search(one_line(line))
        if found is not None:
            return found.groupdict()
    return None


def _pattern(template: str, known: Mapping[str, str | int], reads: Collection[str]) -> str:
    """Return the regular expression of a template."""
    parts: list[str] = []
    seen: set[str] = set()
    for literal, field, _, _ in Formatter().parse(one_line(template)):
        parts.append(re.escape(literal).replace(re.escape(_ANY), ".*?"))
        if field is None:
            continue
        if field in seen:
            parts.append(f"(?P={field})")
        elif field in known and field not in reads:
            parts.append(re.escape(one_line(str(known[field]))))
        else:
            seen.add(field)
            # A word that is read is a number, such as an order's.
            parts.append(f"(?P<{field}>{_WORD if field in reads else _TEXT})")
    return "".join(parts)
