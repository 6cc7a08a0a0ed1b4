"""Reading of corpus files as streams: format by extension, gzip, and UTF-8."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import IO, NamedTuple, TextIO, cast

from gpt2flow.training.errors import CorpusError
from gpt2flow.training.text.formats import (
    Document,
    read_json_lines,
    read_plain_text,
    read_table,
)
from gpt2flow.training.text.tables import read_csv_rows, read_tsv_rows


class _Format(NamedTuple):
    """Way to decode a file and to read its documents."""

    read: Callable[[TextIO, Path], Iterator[Document]]
    newline: str | None = None
    encoding: str = "utf-8-sig"  # Spreadsheets begin their exports with a byte order mark.


_FORMATS = {
    ".jsonl": _Format(read_json_lines),
    ".csv": _Format(lambda file, path: read_table(read_csv_rows(file, path), path), ""),
    ".tsv": _Format(lambda file, path: read_table(read_tsv_rows(file, path), path), ""),
}
_PLAIN_TEXT = _Format(read_plain_text, encoding="utf-8")
_COMPRESSED = ".gz"


def read_documents(path: Path) -> Iterator[Document]:
    """Yield the documents of a file while reading it.

    The extension is the format: `.jsonl`, `.csv` or `.tsv`, and any other is plain text. A file
    with `.gz` after its extension is decompressed.

    Args:
        path: File to read.

    Raises:
        CorpusError: The file is missing, not UTF-8, not complete gzip, or not in its format.
    """
    extension = Path(path.name.lower().removesuffix(_COMPRESSED)).suffix
    form = _FORMATS.get(extension, _PLAIN_TEXT)
    try:
        with TextIOWrapper(_open(path), encoding=form.encoding, newline=form.newline) as file:
            yield from form.read(file, path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CorpusError(f"{path}: not a complete gzip file: {error}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 text, at byte {_find_bad_byte(path)}") from error
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror or error}") from error


def _open(path: Path) -> IO[bytes]:
    is_compressed = path.name.lower().endswith(_COMPRESSED)
    return cast("IO[bytes]", gzip.GzipFile(path)) if is_compressed else path.open("rb")


def _find_bad_byte(path: Path) -> int:
    """Return the offset of the first byte that is not UTF-8."""
    # Decoders of a stream count within a piece.
    position = 0
    with _open(path) as file:
        for line in file:
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return position + error.start
            position += len(line)
    return position
