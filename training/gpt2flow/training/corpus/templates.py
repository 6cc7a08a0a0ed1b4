"""Templates of utterances: parsed once, expanded at random.

    (a|b) one of   [x] half the time   {slot} a slot's value   <name> a phrase

A bracket may hold alternatives too. ` => slot=value, …` at the end fixes values
that the wording implies.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gpt2flow.training.errors import CorpusError

_PIECE = re.compile(r"[()\[\]|]|\{\w+\}|<\w+>|[^()\[\]{}<>|]+|.")
_CLOSING = {"(": ")", "[": "]"}


@dataclass(frozen=True, slots=True)
class Blank:
    """A place for the value of a slot."""

    slot: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several sequences, or nothing half the time if it is optional."""

    options: tuple["Sequence[Node]", ...]
    optional: bool


Node = str | Blank | Choice


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template."""

    nodes: Sequence[Node]
    fixed: Mapping[str, str] = field(default_factory=dict)

    def expand(self, rng: random.Random) -> list[str | Blank]:
        """Return one way to say it, as texts and blanks in order."""
        parts: list[str | Blank] = []
        _expand(self.nodes, rng, parts)
        return parts

    def text(self, rng: random.Random) -> str:
        """Return one way to say it; only for a template without blanks."""
        return "".join(part for part in self.expand(rng) if isinstance(part, str))

    @property
    def slots(self) -> set[str]:
        """The slots that some way to say it has a blank for."""
        return _slots(self.nodes)


def _expand(nodes: Sequence[Node], rng: random.Random, parts: list[str | Blank]) -> None:
    for node in nodes:
        if not isinstance(node, Choice):
            parts.append(node)
        elif not node.optional or rng.random() < 0.5:
            _expand(node.options[int(rng.random() * len(node.options))], rng, parts)


def _slots(nodes: Sequence[Node]) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, Blank):
            found.add(node.slot)
        elif isinstance(node, Choice):
            found.update(*map(_slots, node.options))
    return found


class TemplateParser:
    """Parses the templates of one file, whose phrases they may name."""

    def __init__(self, where: str, phrases: Mapping[str, Sequence[str]]) -> None:
        self._where = where
        self._phrases = phrases
        self._parsed: dict[str, Choice] = {}
        self._open: list[str] = []

    def parse(self, source: str) -> Template:
        """Parse one template.

        Raises:
            CorpusError: the template is malformed; names the file and the template.
        """
        text, _, fixed = source.partition(" => ")
        values = {}
        for part in fixed.split(",") if fixed else []:
            slot, equals, value = part.strip().partition("=")
            if not (slot and equals and value):
                raise self._error(source, f"{part.strip()!r} is not slot=value")
            values[slot] = value
        pieces = _PIECE.findall(text)
        options, end = self._alternatives(source, pieces, 0, closing="")
        if len(options) > 1 or end < len(pieces):
            raise self._error(source, f"{pieces[end] if end < len(pieces) else '|'!r} stands alone")
        return Template(options[0], values)

    def _alternatives(
        self, source: str, pieces: list[str], at: int, closing: str
    ) -> tuple[list[list[Node]], int]:
        """Read alternatives up to `closing`; returns them and where it stands."""
        options: list[list[Node]] = [[]]
        while at < len(pieces) and pieces[at] not in (")", "]"):
            piece = pieces[at]
            if piece == "|":
                options.append([])
            elif piece in _CLOSING:
                inner, at = self._alternatives(source, pieces, at + 1, _CLOSING[piece])
                options[-1].append(Choice(tuple(inner), optional=piece == "["))
            elif len(piece) > 2 and piece[0] == "{":
                options[-1].append(Blank(piece[1:-1]))
            elif len(piece) > 2 and piece[0] == "<":
                options[-1].append(self._phrase(source, piece[1:-1]))
            elif piece in "{}<>":
                raise self._error(source, f"{piece!r} stands alone")
            else:
                options[-1].append(piece)
            at += 1
        if closing and (at == len(pieces) or pieces[at] != closing):
            raise self._error(source, f"{closing!r} is missing")
        return options, at

    def _phrase(self, source: str, name: str) -> Choice:
        if name in self._open:
            raise self._error(source, f"phrase <{name}> contains itself")
        if name not in self._phrases:
            raise self._error(source, f"no phrase <{name}>")
        if name not in self._parsed:
            self._open.append(name)
            options = tuple(self.parse(option).nodes for option in self._phrases[name])
            self._open.pop()
            self._parsed[name] = Choice(options, optional=False)
        return self._parsed[name]

    def _error(self, source: str, problem: str) -> CorpusError:
        return CorpusError(f"{self._where}: template {source!r}: {problem}")
