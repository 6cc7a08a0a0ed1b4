"""Lists of choices in files, read when a model is loaded."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from gpt2flow.server.errors import ConfigError
from gpt2flow.server.grammar.trie import TokenTrie
from gpt2flow.server.grammar.vocabulary import GrammarVocabulary

MAX_ENTRIES: Final = 100_000
MAX_ENTRY_BYTES: Final = 1024

_BOM: Final = b"\xef\xbb\xbf"
# Entries that are tokenized together.
_SLICE: Final = 4096


def files_digest(files: Mapping[str, Path]) -> str:
    """Return a digest that changes with the names and contents of lists.

    Raises:
        ConfigError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _unreadable(name, path, error) from error
        digest.update(f"{name}\n{content}\n".encode())
    return digest.hexdigest()


def read_entries(name: str, path: Path) -> list[str]:
    """Return the entries of a list, one a line.

    Raises:
        ConfigError: The file cannot be read, or a line is no entry; names the line.
    """
    lines: dict[str, int] = {}
    try:
        with path.open("rb") as file:
            for number in itertools.count(1):
                # A longer line is no entry, and need not be read whole.
                raw = file.readline(MAX_ENTRY_BYTES + len(_BOM) + 2)
                if not raw:
                    break
                entry = _entry(raw, f"{_place(name, path)}, line {number}", is_first=number == 1)
                if entry in lines:
                    raise ConfigError(
                        f"{_place(name, path)}, line {number} repeats line {lines[entry]}: "
                        f"{entry!r}"
                    )
                if number > MAX_ENTRIES:
                    raise ConfigError(
                        f"{_place(name, path)} has more than {MAX_ENTRIES} lines, the most entries "
                        "of a list"
                    )
                lines[entry] = number
    except OSError as error:
        raise _unreadable(name, path, error) from error
    if not lines:
        raise ConfigError(f"{_place(name, path)} has no entry, must have at least one line")
    return list(lines)


def build_trie(
    name: str, path: Path, vocabulary: GrammarVocabulary, *, has_end: bool, most_tokens: int
) -> TokenTrie:
    """Return the trie of a list's entries.

    Each entry has one sequence: the tokens that the tokenizer makes of it as a continuation, then
    the first end-of-text token.

    Args:
        name: Name of the list.
        path: Its file.
        vocabulary: Vocabulary of the model.
        has_end: Whether the model has an end-of-text token.
        most_tokens: Most tokens of an entry, its end included.

    Raises:
        ConfigError: The file cannot be read, or a line is no entry; names the line.
    """
    entries = read_entries(name, path)
    end = [vocabulary.eos_token_id] if has_end else []
    sequences: list[list[int]] = []
    for number, (entry, ids) in enumerate(_tokenized(entries, vocabulary), 1):
        where = f"{_place(name, path)}, line {number}"
        if b"".join(vocabulary.tokens[token_id] for token_id in ids) != entry.encode():
            raise ConfigError(f"{where}: the model has no tokens that write {entry!r}")
        if len(ids) + len(end) > most_tokens:
            raise ConfigError(
                f"{where} has {len(ids)} tokens, must have at most {most_tokens - len(end)}: "
                "the context holds a prompt and an end too"
            )
        sequences.append(ids + end)
    if not has_end:
        _check_no_prefixes(sequences, entries, _place(name, path))
    return TokenTrie.build(sequences)


def _tokenized(
    entries: Sequence[str], vocabulary: GrammarVocabulary
) -> Iterator[tuple[str, list[int]]]:
    """Yield each entry with its token ids."""
    for start in range(0, len(entries), _SLICE):
        part = entries[start : start + _SLICE]
        yield from zip(part, vocabulary.encode_all(part), strict=True)


def _entry(raw: bytes, where: str, *, is_first: bool) -> str:
    """Return the text of a line; spaces are a part of it.

    Raises:
        ConfigError: It is empty, too long or not UTF-8.
    """
    line = raw.removeprefix(_BOM) if is_first else raw
    line = line.removesuffix(b"\n").removesuffix(b"\r")
    if not line:
        raise ConfigError(f"{where} is empty, must be an entry")
    if len(line) > MAX_ENTRY_BYTES:
        raise ConfigError(f"{where} is longer than {MAX_ENTRY_BYTES} bytes, the longest entry")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is not UTF-8: byte {error.start + 1}") from error


def _check_no_prefixes(sequences: Sequence[list[int]], entries: Sequence[str], place: str) -> None:
    """Refuse an entry that starts another one.

    Raises:
        ConfigError: There is one; names both lines.
    """
    order = sorted(range(len(sequences)), key=lambda place: sequences[place])
    for one, other in itertools.pairwise(order):
        if sequences[other][: len(sequences[one])] == sequences[one]:
            raise ConfigError(
                f"{place}, line {one + 1}: {entries[one]!r} starts the entry of line {other + 1}, "
                "and the model has no token that ends a text"
            )


def _place(name: str, path: Path) -> str:
    return f"choices {name!r}: {path}"


def _unreadable(name: str, path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{_place(name, path)} cannot be read: {error.strerror}")
