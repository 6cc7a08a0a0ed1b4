"""Measures how well a model understands messages: its actions against labelled ones.

No shop is needed: an action with all that it requires is taken to succeed, and
the state changes as the flows declare.
"""

import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from gpt2flow.agent.errors import InputError, UnanswerableError
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import DONE, Choice, Result, Situation
from gpt2flow.agent.flows.slots import SlotKind
from gpt2flow.agent.flows.text import normalise
from gpt2flow.agent.shop.catalogue import load_catalogue
from gpt2flow.agent.shop.matching import bare, same_product
from gpt2flow.agent.turns.model import Model, ModelAnswer, parse_choice
from gpt2flow.agent.turns.turn import run_turn

_PRODUCT = "product"


class _State(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    facts: frozenset[str]
    awaiting: tuple[str, str] | None = None


class Example(BaseModel):
    """A labelled message; `actions` are those expected, without `done`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    lang: Literal["en", "zh"]
    state: _State
    message: str
    actions: list[dict[str, str | int]]

    @property
    def expected(self) -> list[Choice]:
        """The expected actions as choices."""
        return [
            Choice(str(action["action"]), {k: v for k, v in action.items() if k != "action"})
            for action in self.actions
        ]

    @property
    def state_line(self) -> str:
        """The state in words, as figures are grouped by it."""
        facts = " ".join(sorted(self.state.facts))
        return f"{facts} awaiting" if self.state.awaiting else facts


@dataclass(frozen=True)
class Verdict:
    """What the model chose for an example, and whether that is right."""

    example: Example
    chosen: list[Choice]
    first: bool
    whole: bool
    answers: list[ModelAnswer]


@dataclass(frozen=True)
class _Executed:
    result: Result
    facts: frozenset[str]


def load_examples(path: Path) -> list[Example]:
    """Load a JSON Lines file of labelled messages.

    Raises:
        InputError: it cannot be read, or a line is not valid; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from error
    return [_example(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _example(path: Path, number: int, line: str) -> Example:
    try:
        return Example.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: line {number}: {field}: {first['msg']}") from error


def judge(book: FlowBook, model: Model, examples: Iterable[Example]) -> Iterator[Verdict]:
    """Ask the model about every example, and compares.

    Raises:
        InputError: the server has no such model.
        ModelError: the model cannot be asked.
    """
    names = load_catalogue().names
    for example in examples:
        chosen, answers = _understand(book, model, example)
        same = [_same(book, names, a, b) for a, b in zip(chosen, example.expected, strict=False)]
        whole = all(same) and len(chosen) == len(example.expected)
        yield Verdict(example, chosen, bool(same and same[0]), whole, answers)


def _understand(
    book: FlowBook, model: Model, example: Example
) -> tuple[list[Choice], list[ModelAnswer]]:
    chosen, answers = list[Choice](), list[ModelAnswer]()

    def choose(position: int, prompt: str, grammar: str) -> Choice:
        del position
        try:
            answers.append(model.choose(prompt, grammar))
            return parse_choice(answers[-1].text)
        except UnanswerableError:  # as where the context is full
            return Choice(DONE)

    facts = example.state.facts

    def execute(position: int, choice: Choice) -> _Executed:
        nonlocal facts
        del position
        chosen.append(choice)
        if set(book.actions[choice.action].required) - set(choice.arguments):
            return _Executed("asked", facts)
        facts = book.apply(choice.action, facts)
        return _Executed("ok", facts)

    situation = Situation(facts, example.state.awaiting)
    run_turn(book, situation, normalise(example.message), choose, execute)
    return chosen, answers


def _same(book: FlowBook, names: Mapping[str, Collection[str]], one: Choice, other: Choice) -> bool:
    """Say whether two choices mean the same."""
    if one.action != other.action or one.arguments.keys() != other.arguments.keys():
        return False
    return all(
        _same_value(book, names, slot, str(one.arguments[slot]), str(other.arguments[slot]))
        for slot in one.arguments
    )


def _same_value(
    book: FlowBook, names: Mapping[str, Collection[str]], slot: str, one: str, other: str
) -> bool:
    if book.slots[slot].kind is not SlotKind.SPAN:
        return one == other
    if slot == _PRODUCT:
        return bare(one) == bare(other) or same_product(one, other, names)
    return _letters(one) == _letters(other)


def _letters(text: str) -> str:
    """The text without blanks, punctuation and case."""
    return "".join(c for c in normalise(text).casefold() if unicodedata.category(c)[0] not in "PZ")


def summary(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Figures of an evaluation, as JSON has them.

    Returns:
        The share of examples whose first action, and whose whole sequence, is
        right with all arguments: over all, by language, by number of expected
        actions and by state. Beside it the time of one call in milliseconds,
        and every miss.
    """
    return {
        **_figures(verdicts),
        "by_language": _grouped(verdicts, lambda v: v.example.lang),
        "by_actions": _grouped(verdicts, lambda v: str(len(v.example.actions))),
        "by_state": _grouped(verdicts, lambda v: v.example.state_line),
        "milliseconds": _milliseconds(verdicts),
        "misses": [_miss(verdict) for verdict in verdicts if not verdict.whole],
    }


def _figures(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    count = len(verdicts)
    return {
        "examples": count,
        "first_action": sum(v.first for v in verdicts) / max(count, 1),
        "whole_sequence": sum(v.whole for v in verdicts) / max(count, 1),
    }


def _grouped(
    verdicts: Sequence[Verdict], group: Callable[[Verdict], str]
) -> dict[str, dict[str, Any]]:
    groups = sorted({group(verdict) for verdict in verdicts})
    return {name: _figures([v for v in verdicts if group(v) == name]) for name in groups}


def _milliseconds(verdicts: Sequence[Verdict]) -> dict[str, float]:
    times = [answer.milliseconds for verdict in verdicts for answer in verdict.answers]
    if len(times) < 2:
        return {}
    percentiles = quantiles(times, n=100, method="inclusive")
    return {"p50": percentiles[49], "p95": percentiles[94]}


def _miss(verdict: Verdict) -> dict[str, Any]:
    example = verdict.example
    return {
        "id": example.id,
        "state": example.state_line,
        "message": example.message,
        "expected": [choice.text for choice in example.expected],
        "chosen": [choice.text for choice in verdict.chosen],
    }
