"""Utterance templates, parsed once and expanded at random.

    (a|b)    one of the alternatives, with equal probability
    [x]      `x` with probability ½; it may hold alternatives too
    {slot}   a value of the slot; in a combination of wishes `{n.slot}`, of the n-th wish
    <name>   a phrase of the file

` => slot=value, …` at the end fixes slot values that the wording implies.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gpt2flow.training.errors import CorpusError

_SYMBOL = re.compile(r"[()\[\]|]|\{\w+(?:\.\w+)?\}|<\w+>|[^()\[\]{}<>|]+|.")
_CLOSING = {"(": ")", "[": "]"}


@dataclass(frozen=True, slots=True)
class Placeholder:
    """Position of a slot's value."""

    slot: str


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Random choice among sequences, with probability ½ of none if optional."""

    options: tuple["Sequence[Node]", ...]
    optional: bool


Node = str | Placeholder | Alternatives


@dataclass(frozen=True, slots=True)
class Template:
    """Parsed template of an utterance.

    Attributes:
        nodes: Syntax tree.
        fixed: Slot values that the wording implies, by slot.
    """

    nodes: Sequence[Node]
    fixed: Mapping[str, str] = field(default_factory=dict)

    def expand(self, rng: random.Random) -> list[str | Placeholder]:
        """Return a random expansion, as texts and placeholders in order."""
        parts: list[str | Placeholder] = []
        _expand(self.nodes, rng, parts)
        return parts

    def text(self, rng: random.Random) -> str:
        """Return a random expansion of a template without placeholders."""
        return "".join(part for part in self.expand(rng) if isinstance(part, str))

    @property
    def slots(self) -> set[str]:
        """Slots with a placeholder in at least one expansion."""
        return _collect_slots(self.nodes)


def sample_usual(templates: Sequence[Template], rng: random.Random) -> Template:
    """Return a random template, usual ones more often.

    Files list the usual wordings first, so that half of the draws are from the first quarter.
    """
    return templates[int(len(templates) * rng.random() ** 2)]


def _expand(nodes: Sequence[Node], rng: random.Random, parts: list[str | Placeholder]) -> None:
    for node in nodes:
        if not isinstance(node, Alternatives):
            parts.append(node)
        elif not node.optional or rng.random() < 0.5:
            _expand(node.options[int(rng.random() * len(node.options))], rng, parts)


def _collect_slots(nodes: Sequence[Node]) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, Placeholder):
            found.add(node.slot)
        elif isinstance(node, Alternatives):
            found.update(*map(_collect_slots, node.options))
    return found


class TemplateParser:
    """Parser of the templates of one file and the phrases they reference."""

    def __init__(self, source_name: str, phrases: Mapping[str, Sequence[str]]) -> None:
        """Create a parser.

        Args:
            source_name: Name of the file in error messages.
            phrases: Templates of each phrase, by name.
        """
        self._source_name = source_name
        self._phrases = phrases
        self._parsed: dict[str, Alternatives] = {}
        # Phrases being parsed, to detect cycles.
        self._open: list[str] = []

    def parse(self, source: str) -> Template:
        """Parse one template.

        Raises:
            CorpusError: The template is malformed; the message names the file and the template.
        """
        text, _, fixed = source.partition(" => ")
        values = {}
        for part in fixed.split(",") if fixed else []:
            slot, equals, value = part.strip().partition("=")
            if not (slot and equals and value):
                raise self._error(source, f"{part.strip()!r} is not slot=value")
            values[slot] = value
        symbols = _SYMBOL.findall(text)
        options, end = self._parse_alternatives(source, symbols, 0, closing="")
        if len(options) > 1 or end < len(symbols):
            stray = symbols[end] if end < len(symbols) else "|"
            raise self._error(source, f"stray {stray!r}")
        return Template(options[0], values)

    def _parse_alternatives(
        self, source: str, symbols: list[str], at: int, closing: str
    ) -> tuple[list[list[Node]], int]:
        """Parse alternatives up to `closing`; return them and its index."""
        options: list[list[Node]] = [[]]
        while at < len(symbols) and symbols[at] not in (")", "]"):
            symbol = symbols[at]
            if symbol == "|":
                options.append([])
            elif symbol in _CLOSING:
                inner, at = self._parse_alternatives(source, symbols, at + 1, _CLOSING[symbol])
                options[-1].append(Alternatives(tuple(inner), optional=symbol == "["))
            elif len(symbol) > 2 and symbol[0] == "{":
                options[-1].append(Placeholder(symbol[1:-1]))
            elif len(symbol) > 2 and symbol[0] == "<":
                options[-1].append(self._parse_phrase(source, symbol[1:-1]))
            elif symbol in "{}<>":
                raise self._error(source, f"stray {symbol!r}")
            else:
                options[-1].append(symbol)
            at += 1
        if closing and (at == len(symbols) or symbols[at] != closing):
            raise self._error(source, f"{closing!r} is missing")
        return options, at

    def _parse_phrase(self, source: str, name: str) -> Alternatives:
        if name in self._open:
            raise self._error(source, f"phrase <{name}> contains itself")
        if name not in self._phrases:
            raise self._error(source, f"no phrase <{name}>")
        if name not in self._parsed:
            self._open.append(name)
            options = tuple(self.parse(option).nodes for option in self._phrases[name])
            self._open.pop()
            self._parsed[name] = Alternatives(options, optional=False)
        return self._parsed[name]

    def _error(self, source: str, problem: str) -> CorpusError:
        return CorpusError(f"{self._source_name}: template {source!r}: {problem}")
