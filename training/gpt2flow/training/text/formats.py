"""Corpus formats: plain text, JSON Lines, and tables."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from gpt2flow.agent.flows.prompt import END
from gpt2flow.training.errors import CorpusError
from gpt2flow.training.text.tables import Row

_PIECE = 2**16
_TEXT, _PAIR = "text", ("instruction", "response")
_TURN = ("conversationid", "turnnumber", "utterance")
_CONVERSATION = ("conversation", "conversationid")
# Roles of the two sides of a pair, as in `messages`.
_ASKS, _ANSWERS = "user", "assistant"
# Names of columns are shorter; a longer field shows that a table has no header.
_MAX_NAME = 40
_JSON_LINE = '{"text": …} or {"messages": [{"role": …, "content": …}, …]}'
_COLUMNS = "text, or instruction and response, or conversationId, turnNumber and utterance"

_Turn = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a corpus.

    Attributes:
        text: Text; a dialogue has one line a turn.
        conversation: Id of the conversation that it belongs to. None if it stands alone.
        is_dialogue: Whether its lines are turns, which are meaningless without each other.
    """

    text: str
    conversation: str | None = None
    is_dialogue: bool = False


def split_documents(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the documents of a text, each terminated by `<|endoftext|>`.

    Args:
        pieces: Text in pieces of any lengths; a piece may end within a terminator.
    """
    parts: list[str] = []
    held = ""  # End of the last piece, which may begin a terminator.
    for piece in pieces:
        *ended, rest = (held + piece).split(END)
        for part in ended:
            yield from _strip_document([*parts, part])
            parts = []
        cut = max(0, len(rest) - len(END) + 1)
        parts.append(rest[:cut])
        held = rest[cut:]
    yield from _strip_document([*parts, held])


def _strip_document(parts: list[str]) -> Iterator[str]:
    document = "".join(parts).strip("\n")
    if document.strip():
        yield document


def read_plain_text(file: TextIO, _: Path) -> Iterator[Document]:
    """Yield the documents of plain text, in which `<|endoftext|>` ends each."""
    pieces = iter(partial(file.read, _PIECE), "")
    return (Document(document) for document in split_documents(pieces))


def read_json_lines(file: TextIO, path: Path) -> Iterator[Document]:
    """Yield the documents of JSON Lines.

    Args:
        file: Lines, each with an object that has `text` or `messages`.
        path: Name of the file in errors.

    Raises:
        CorpusError: A line is no such object.
    """
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        at = f"{path}: line {number}"
        try:
            record = json.loads(line)
        # Deep nesting and numbers of thousands of digits are errors of these kinds as well.
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{at}: not JSON, expected {_JSON_LINE}") from error
        if not isinstance(record, dict) or ("text" in record) == ("messages" in record):
            raise CorpusError(f"{at}: expected {_JSON_LINE}")
        conversation = _conversation_of(record, at)
        if "text" in record:
            yield from _make_documents(_string(record, "text", at), conversation)
        else:
            yield _make_dialogue(_turns_of(record["messages"], at), conversation)


def read_table(rows: Iterator[Row], path: Path) -> Iterator[Document]:
    """Yield the documents of a table of texts, pairs or turns.

    Args:
        rows: Rows with the numbers of their lines, the first with the names of the columns.
        path: Name of the table in errors.

    Raises:
        CorpusError: The table has other columns, or a turn is not numbered.
    """
    first = next(rows, None)
    if first is None:
        return
    names = [name.strip().lower() for name in first[1]]
    columns = {name: index for index, name in reversed(list(enumerate(names)))}
    if _TEXT in columns:
        yield from _read_texts(rows, columns)
    elif columns.keys() >= set(_PAIR):
        yield from _read_pairs(rows, columns)
    elif columns.keys() >= set(_TURN):
        yield from _read_turns(rows, columns, path)
    elif len(names) == len(_PAIR) and max(map(len, names)) > _MAX_NAME:
        yield from _read_pairs(chain([first], rows), dict(zip(_PAIR, range(2), strict=True)))
    else:
        found = ", ".join(first[1])
        raise CorpusError(f"{path}: line {first[0]}: columns {found}; expected {_COLUMNS}")


def _read_texts(rows: Iterator[Row], columns: dict[str, int]) -> Iterator[Document]:
    for _, row in rows:
        yield from _make_documents(row[columns[_TEXT]], _conversation_in(row, columns))


def _read_pairs(rows: Iterator[Row], columns: dict[str, int]) -> Iterator[Document]:
    asked, answered = (columns[name] for name in _PAIR)
    for _, row in rows:
        turns = [(_ASKS, row[asked]), (_ANSWERS, row[answered])]
        yield _make_dialogue(turns, _conversation_in(row, columns))


def _read_turns(rows: Iterator[Row], columns: dict[str, int], path: Path) -> Iterator[Document]:
    """Yield one document a conversation."""
    # Rows of a conversation may lie anywhere in a table, so that all of it is read first.
    conversation, _, utterance = (columns[name] for name in _TURN)
    role = columns.get("authorrole")
    numbers = [columns[name] for name in ("turnnumber", "sentencenumber") if name in columns]
    conversations: dict[str, list[tuple[tuple[float, ...], _Turn]]] = {}
    for line, row in rows:
        try:
            order = tuple(float(row[column]) for column in numbers)
        except ValueError as error:
            found = " ".join(row[column] for column in numbers)
            raise CorpusError(
                f"{path}: line {line}: turnNumber {found!r}, expected a number"
            ) from error
        if not row[conversation]:
            raise CorpusError(f"{path}: line {line}: conversationId is empty")
        turn = ("" if role is None else row[role], row[utterance])
        conversations.setdefault(row[conversation], []).append((order, turn))
    for name in list(conversations):
        turns = sorted(conversations.pop(name), key=lambda each: each[0])
        yield _make_dialogue((turn for _, turn in turns), name)


def _conversation_in(row: list[str], columns: dict[str, int]) -> str | None:
    return next((row[columns[name]] or None for name in _CONVERSATION if name in columns), None)


def _make_documents(text: str, conversation: str | None) -> Iterator[Document]:
    """Yield the documents of a text; an empty text is one too."""
    for document in list(split_documents([text])) or [""]:
        yield Document(document, conversation)


def _make_dialogue(turns: Iterable[_Turn], conversation: str | None) -> Document:
    """Write turns that are not empty as lines `role: content`."""
    lines = [
        f"{' '.join(role.split())}: {words}" if role.strip() else words
        for role, content in turns
        if (words := " ".join(content.split()))
    ]
    return Document("\n".join(lines), conversation, is_dialogue=True)


def _turns_of(messages: object, at: str) -> list[_Turn]:
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise CorpusError(f"{at}: messages: expected a list of objects with role and content")
    return [(_string(each, "role", at), _string(each, "content", at)) for each in messages]


def _string(record: dict[str, Any], field: str, at: str) -> str:
    value = record.get(field)
    if not isinstance(value, str):
        raise CorpusError(f"{at}: {field} {json.dumps(value)[:40]}, expected a string")
    # JSON can escape half a surrogate pair, which is no character.
    return value.encode(errors="ignore").decode()


def _conversation_of(record: dict[str, Any], at: str) -> str | None:
    value = record.get("conversation")
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise CorpusError(
            f"{at}: conversation {json.dumps(value)[:40]}, expected a string or a whole number"
        )
    return None if value in (None, "") else str(value)
