"""Rows of delimited tables, each with the number of its first line."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from gpt2flow.training.errors import CorpusError

# A longer field is more likely an unclosed quote than a text.
_MAX_FIELD = 2**24

Row = tuple[int, list[str]]


def read_csv_rows(file: TextIO, path: Path) -> Iterator[Row]:
    """Yield the rows of a comma-separated table, its header included.

    Args:
        file: Table, opened with `newline=""`.
        path: Name of the table in errors.

    Raises:
        CorpusError: A quote is misplaced, or a row is not as wide as the first.
    """
    return _check_widths(_parse_quoted(file, ",", path), path)


def read_tsv_rows(file: TextIO, path: Path) -> Iterator[Row]:
    r"""Yield the rows of a tab-separated table, its header included.

    Some tables quote fields with tabs or line breaks, as in CSV; in others quotes are literal, and
    every line is a row. A table is of the first kind if all of it can be read so. In both, `\n`
    is a line break.

    Args:
        file: Table, opened with `newline=""`, which is read twice.
        path: Name of the table in errors.

    Raises:
        CorpusError: A row is not as wide as the first.
    """
    is_quoted = _can_be_quoted(file, path)
    file.seek(0)
    rows = _parse_quoted(file, "\t", path) if is_quoted else _parse_literal(file)
    for line, row in _check_widths(rows, path):
        yield line, [field.replace("\\n", "\n") for field in row]


def _can_be_quoted(file: TextIO, path: Path) -> bool:
    try:
        for _ in _check_widths(_parse_quoted(file, "\t", path), path):
            pass
    except CorpusError:
        return False
    return True


def _parse_quoted(file: TextIO, delimiter: str, path: Path) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD))
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise CorpusError(
                f"{path}: line {line}: {error}; expected a field with quotes, commas or line "
                'breaks in quotes, and its own quotes as ""'
            ) from error
        if row is None:
            return
        yield line, row


def _parse_literal(file: TextIO) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        text = line.rstrip("\r\n")
        yield number, text.split("\t") if text else []


def _check_widths(rows: Iterator[Row], path: Path) -> Iterator[Row]:
    """Yield rows that are not blank, all of one width."""
    width = 0
    for line, row in rows:
        width = width or len(row)
        if row and len(row) != width:
            raise CorpusError(
                f"{path}: line {line}: {len(row)} fields, expected {width} as in the first line"
            )
        if row:
            yield line, row
