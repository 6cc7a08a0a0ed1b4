"""Evaluation of a model's actions against labelled messages.

The evaluation needs no shop. It assumes that an action with all its required slots
succeeds, and changes the state by the declared effects.
"""

import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any, Literal

from pydantic import ValidationError

from gpt2flow.agent.errors import InputError, UnanswerableError
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import DONE, Choice, PromptState, Result, normalize
from gpt2flow.agent.flows.slots import SlotKind
from gpt2flow.agent.shop.catalogue import load_catalogue
from gpt2flow.agent.shop.matching import same_product, strip_article
from gpt2flow.agent.turns.execution.wishes import fallback_arguments, is_superfluous
from gpt2flow.agent.turns.model import ChoiceModel, ModelAnswer, parse_choice
from gpt2flow.agent.turns.turn import run_turn
from gpt2flow.files.documents import StrictModel, first_violation

_PRODUCT = "product"

MISSES = ("wrong_action", "wrong_argument", "ended_early", "too_many")
"""Kinds of misses: how the first wrong choice of a sequence differs from the label."""


class _State(StrictModel):
    facts: frozenset[str]
    awaiting: tuple[str, str] | None = None


class Example(StrictModel):
    """Labelled message.

    Attributes:
        id: Unique id of the example.
        lang: Language of the message.
        state: State before the message.
        message: Text of the message.
        actions: Expected actions in order, without `done`.
    """

    id: str
    lang: Literal["en", "zh"]
    state: _State
    message: str
    actions: list[dict[str, str | int]]

    @property
    def expected(self) -> list[Choice]:
        """Expected actions as choices."""
        return [
            Choice(str(action["action"]), {k: v for k, v in action.items() if k != "action"})
            for action in self.actions
        ]

    @property
    def prompt_state(self) -> PromptState:
        """State that the model reads; an open question is the latest action."""
        awaiting = self.state.awaiting
        past = ((awaiting[0], "asked"),) if awaiting else ()
        return PromptState(self.state.facts, awaiting, past)

    @property
    def state_line(self) -> str:
        """Text of the state, by which the summary groups examples."""
        facts = " ".join(sorted(self.state.facts))
        return f"{facts} awaiting" if self.state.awaiting else facts


@dataclass(frozen=True)
class Verdict:
    """Comparison of the model's choices with an example.

    Attributes:
        example: Labelled message.
        chosen: Choices of the model, without `done`.
        first_correct: Whether the first choice is correct, arguments included.
        all_correct: Whether the whole sequence is correct, arguments included.
        miss: Kind of the first difference, one of `MISSES`; None if all is correct.
        answers: Model calls.
    """

    example: Example
    chosen: list[Choice]
    first_correct: bool
    all_correct: bool
    miss: str | None
    answers: list[ModelAnswer]


@dataclass(frozen=True)
class _AssumedStep:
    result: Result
    facts: frozenset[str]


def load_examples(path: Path) -> list[Example]:
    """Load a JSON Lines file of labelled messages.

    Raises:
        InputError: The file cannot be read, or a line is invalid; the message names it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from error
    return [
        _parse_example(path, number, line) for number, line in enumerate(lines, 1) if line.strip()
    ]


def _parse_example(path: Path, number: int, line: str) -> Example:
    try:
        return Example.model_validate_json(line)
    except ValidationError as error:
        raise InputError(f"{path}: line {number}: {first_violation(error)}") from error


def judge(book: FlowBook, model: ChoiceModel, examples: Iterable[Example]) -> Iterator[Verdict]:
    """Run the model on every example and compare its choices.

    Raises:
        InputError: The server has no such model.
        ModelError: A model call failed.
    """
    names = load_catalogue().names
    for example in examples:
        chosen, answers = _run_example(book, model, example)
        pairs = zip(chosen, example.expected, strict=False)
        matches = [_is_same_choice(book, names, a, b) for a, b in pairs]
        all_correct = all(matches) and len(chosen) == len(example.expected)
        miss = None if all_correct else _kind_of_miss(chosen, example.expected, matches)
        yield Verdict(example, chosen, bool(matches and matches[0]), all_correct, miss, answers)


def _kind_of_miss(
    chosen: Sequence[Choice], expected: Sequence[Choice], matches: Sequence[bool]
) -> str:
    """Return the kind of the first difference between two sequences."""
    for one, other, matched in zip(chosen, expected, matches, strict=False):
        if not matched:
            return "wrong_argument" if one.action == other.action else "wrong_action"
    return "ended_early" if len(chosen) < len(expected) else "too_many"


def _run_example(
    book: FlowBook, model: ChoiceModel, example: Example
) -> tuple[list[Choice], list[ModelAnswer]]:
    chosen, answers = list[Choice](), list[ModelAnswer]()

    def choose(position: int, prompt: str, grammar: str) -> Choice:
        del position
        try:
            answers.append(model.choose(prompt, grammar))
            return parse_choice(answers[-1])
        except UnanswerableError:  # For example, the context is full.
            return Choice(DONE)

    facts, message = example.state.facts, normalize(example.message)

    def execute(position: int, choice: Choice) -> _AssumedStep:
        nonlocal facts
        del position
        wish = choice
        if (fallback := book.fallback(wish.action, facts, wish.arguments)) is not None:
            choice = _fall_back(book, wish, fallback.action, facts, message)
            taken = [each.action for each in chosen]
            if not fallback.without and is_superfluous(book, choice.action, taken):
                return _AssumedStep("blocked", facts)
        elif choice in chosen:
            return _AssumedStep("ok", facts)
        chosen.append(choice)
        is_complete = not set(book.actions[choice.action].required) - set(choice.arguments)
        if is_complete:
            facts = book.apply(choice.action, facts)
        if choice is not wish:
            return _AssumedStep("blocked", facts)
        return _AssumedStep("ok" if is_complete else "asked", facts)

    run_turn(book, example.prompt_state, message, choose, execute)
    return chosen, answers


def _fall_back(
    book: FlowBook, wish: Choice, fallback: str, facts: frozenset[str], message: str
) -> Choice:
    """Return the choice that takes the place of a wish."""
    action = book.resolve(fallback, facts)
    return Choice(action, fallback_arguments(book, action, wish, message))


def _is_same_choice(
    book: FlowBook, names: Mapping[str, Collection[str]], one: Choice, other: Choice
) -> bool:
    """Return whether two choices have the same action and equivalent arguments."""
    if one.action != other.action or one.arguments.keys() != other.arguments.keys():
        return False
    return all(
        same_value(book, names, slot, str(one.arguments[slot]), str(other.arguments[slot]))
        for slot in one.arguments
    )


def same_value(
    book: FlowBook, names: Mapping[str, Collection[str]], slot: str, one: str, other: str
) -> bool:
    """Return whether two values of a slot mean the same.

    Spans may differ in case, spaces and punctuation, and products in their name.
    """
    if book.slots[slot].kind is not SlotKind.SPAN:
        return one == other
    if slot == _PRODUCT:
        return strip_article(one) == strip_article(other) or same_product(one, other, names)
    return _fold(one) == _fold(other)


def _fold(text: str) -> str:
    """Return the text in lower case, without spaces and punctuation."""
    return "".join(c for c in normalize(text).casefold() if unicodedata.category(c)[0] not in "PZ")


def summary(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Summarize an evaluation as a JSON object.

    Returns:
        Shares of examples with a correct first action and a correct whole sequence,
        arguments included. They are given overall, by language, by number of expected
        actions and by state. The object also has the numbers of misses of each kind by
        state and language, percentiles of the latency of a model call in milliseconds, and
        every incorrect example.
    """
    return {
        **_accuracy(verdicts),
        "by_language": _accuracy_by(verdicts, lambda v: v.example.lang),
        "by_actions": _accuracy_by(verdicts, lambda v: str(len(v.example.actions))),
        "by_state": _accuracy_by(verdicts, lambda v: v.example.state_line),
        "miss_kinds": _count_misses(verdicts),
        "milliseconds": _latency(verdicts),
        "misses": [_describe_miss(verdict) for verdict in verdicts if not verdict.all_correct],
    }


def _accuracy(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    count = len(verdicts)
    return {
        "examples": count,
        "first_action": sum(v.first_correct for v in verdicts) / max(count, 1),
        "whole_sequence": sum(v.all_correct for v in verdicts) / max(count, 1),
    }


def _accuracy_by(
    verdicts: Sequence[Verdict], group: Callable[[Verdict], str]
) -> dict[str, dict[str, Any]]:
    groups = sorted({group(verdict) for verdict in verdicts})
    return {name: _accuracy([v for v in verdicts if group(v) == name]) for name in groups}


def _count_misses(verdicts: Sequence[Verdict]) -> dict[str, dict[str, int]]:
    """Return the number of misses of each kind, by state and language."""
    counts: dict[str, dict[str, int]] = {}
    for verdict in verdicts:
        if verdict.miss is not None:
            group = f"{verdict.example.state_line}, {verdict.example.lang}"
            counts.setdefault(group, dict.fromkeys(MISSES, 0))[verdict.miss] += 1
    return dict(sorted(counts.items()))


def _latency(verdicts: Sequence[Verdict]) -> dict[str, float]:
    times = [answer.milliseconds for verdict in verdicts for answer in verdict.answers]
    if len(times) < 2:
        return {}
    percentiles = quantiles(times, n=100, method="inclusive")
    return {"p50": percentiles[49], "p95": percentiles[94]}


def _describe_miss(verdict: Verdict) -> dict[str, Any]:
    example = verdict.example
    return {
        "id": example.id,
        "kind": verdict.miss,
        "state": example.state_line,
        "message": example.message,
        "expected": [choice.text for choice in example.expected],
        "chosen": [choice.text for choice in verdict.chosen],
    }
