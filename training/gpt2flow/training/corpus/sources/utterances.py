"""Utterance files of the flows: customer phrasings of actions and slot values."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import Result
from gpt2flow.agent.flows.slots import SlotKind
from gpt2flow.files.documents import StrictModel, read_yaml
from gpt2flow.training.corpus.sources.templates import Template, TemplateParser
from gpt2flow.training.errors import CorpusError

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")

UNWANTED = "not"
"""Number of the wish of a value that the customer does not want, as in `{not.order}`."""


class _FollowUps(StrictModel):
    """Requests for one action after certain others.

    Attributes:
        action: Requested action.
        after: Earlier actions with their results, each `action result`.
        say: Templates of the request.
    """

    action: str
    after: list[str] = Field(min_length=1)
    say: list[str] = Field(min_length=1)


class _Combinations(StrictModel):
    """Wordings of several wishes at once.

    Attributes:
        actions: Requested actions, in the order of execution.
        shared: Slots whose values all of them take from the first.
        say: Templates, whose placeholders are `{1.slot}` and so on; the value of `{not.slot}` is
            one that the customer does not want.
    """

    actions: list[str] = Field(min_length=1)
    shared: list[str] = []
    say: list[str] = Field(min_length=1)


class _UtteranceFile(StrictModel):
    """Schema of `utterances.<language>.yaml`.

    Attributes:
        phrases: Templates that others include as `<name>`, by name.
        actions: Templates of requests, by action.
        values: Templates of the values of enum slots, by slot and value.
        answers: Templates of answers to the question for a slot, by slot.
        spans: Templates of the values of span slots that the lexicon lacks, by slot.
        openers: Templates before the first request of a message.
        closers: Templates after the last request of a message.
        joiners: Templates between two requests.
        follow_ups: Templates of requests that only make sense after certain actions.
        combinations: Templates of several wishes at once.
        corrections: Templates between a value that is taken back and the right one.
        retractions: Templates between a request that is taken back and the right one.
    """

    phrases: dict[str, list[str]] = {}
    actions: dict[str, list[str]] = {}
    values: dict[str, dict[str, list[str]]] = {}
    answers: dict[str, list[str]] = {}
    spans: dict[str, list[str]] = {}
    openers: list[str] = []
    closers: list[str] = []
    joiners: list[str] = []
    follow_ups: list[_FollowUps] = []
    combinations: list[_Combinations] = []
    corrections: list[str] = []
    retractions: list[str] = []


@dataclass(frozen=True)
class FollowUp:
    """Request that refers to an earlier action of the conversation.

    Attributes:
        action: Requested action.
        after: Earlier action and its result.
        template: Wording of the request.
    """

    action: str
    after: tuple[str, str]
    template: Template


@dataclass(frozen=True)
class Combination:
    """Wording of several wishes at once.

    Attributes:
        actions: Requested actions, in the order of execution.
        shared: Slots whose values all of them take from the first.
        template: Wording; see `UNWANTED` and `wish_and_slot` for its placeholders.
    """

    actions: tuple[str, ...]
    shared: frozenset[str]
    template: Template


def wish_and_slot(placeholder: str) -> tuple[int | None, str]:
    """Return the index of the wish, and the slot, of a placeholder.

    `1.order` gives 0 and `order`. The index is None for an unwanted value.
    """
    number, _, slot = placeholder.partition(".")
    return (None if number == UNWANTED else int(number) - 1), slot


@dataclass
class Utterances:
    """Parsed utterances of all flows in one language, grouped as in files."""

    actions: dict[str, list[Template]] = field(default_factory=dict)
    values: dict[str, dict[str, list[Template]]] = field(default_factory=dict)
    answers: dict[str, list[Template]] = field(default_factory=dict)
    spans: dict[str, list[Template]] = field(default_factory=dict)
    openers: list[Template] = field(default_factory=list)
    closers: list[Template] = field(default_factory=list)
    joiners: list[Template] = field(default_factory=list)
    follow_ups: dict[str, list[FollowUp]] = field(default_factory=dict)
    combinations: list[Combination] = field(default_factory=list)
    corrections: list[Template] = field(default_factory=list)
    retractions: list[Template] = field(default_factory=list)


def load_utterances(directory: Path, book: FlowBook, language: Language) -> Utterances:
    """Load the utterances of a directory of flows.

    They are in `*/utterances.<language>.yaml`, and in `*/dialogue.<language>.yaml` and
    `*/combinations.<language>.yaml` beside it.

    Args:
        directory: Directory of the flows.
        book: Flows loaded from it.
        language: Language of the files to load.

    Raises:
        CorpusError: A file is invalid, or utterances are missing for an action of customers or a
            slot value. The message names the file and the field.
    """
    utterances = Utterances()
    for name in ("utterances", "dialogue", "combinations"):
        for path in sorted(directory.glob(f"*/{name}.{language}.yaml")):
            _add_file(utterances, path, book)
    for name, action in book.actions.items():
        if action.event is None and not utterances.actions.get(name):
            raise CorpusError(f"{directory}: no {language} utterances for action {name}")
    if not utterances.joiners:
        raise CorpusError(f"{directory}: no {language} joiners in any utterance file")
    for slot in {slot for name in utterances.actions for slot in book.actions[name].slots}:
        for value in book.slots[slot].values:
            if not utterances.values.get(slot, {}).get(value):
                raise CorpusError(f"{directory}: no {language} phrases for {slot} {value}")
    return utterances


def _add_file(utterances: Utterances, path: Path, book: FlowBook) -> None:
    content = read_yaml(path, _UtteranceFile, CorpusError)
    parser = TemplateParser(str(path), content.phrases)

    def parse(sources: Sequence[str], allowed: set[str]) -> list[Template]:
        templates = [parser.parse(source) for source in sources]
        for source, template in zip(sources, templates, strict=True):
            _check_slots(path, source, template, allowed, book)
        return templates

    for name, sources in content.actions.items():
        _check_action(path, name, book)
        slots = set(book.actions[name].slots)
        utterances.actions.setdefault(name, []).extend(parse(sources, slots))
    for slot, sources in content.answers.items():
        utterances.answers.setdefault(slot, []).extend(parse(sources, set(book.slots)))
    for slot, value, sources in _values(path, content, book):
        utterances.values.setdefault(slot, {}).setdefault(value, []).extend(parse(sources, set()))
    for slot, sources in content.spans.items():
        utterances.spans.setdefault(slot, []).extend(parse(sources, set()))
    for part in ("openers", "closers", "joiners", "corrections", "retractions"):
        getattr(utterances, part).extend(parse(getattr(content, part), set()))
    _add_combinations(utterances, path, content, parser, book)
    for group in content.follow_ups:
        _check_action(path, group.action, book)
        templates = parse(group.say, set(book.actions[group.action].slots))
        found = utterances.follow_ups.setdefault(group.action, [])
        for after in group.after:
            earlier = _parse_result(path, after, book)
            found += [FollowUp(group.action, earlier, template) for template in templates]


def _add_combinations(
    utterances: Utterances,
    path: Path,
    content: _UtteranceFile,
    parser: TemplateParser,
    book: FlowBook,
) -> None:
    for group in content.combinations:
        for action in group.actions:
            _check_action(path, action, book)
        allowed = {f"{UNWANTED}.{slot}" for slot in book.slots}
        for wish, action in enumerate(group.actions, start=1):
            allowed |= {f"{wish}.{slot}" for slot in book.actions[action].slots}
        first, *others = (set(book.actions[action].slots) for action in group.actions)
        if unshared := set(group.shared) - (first & set().union(*others)):
            raise CorpusError(
                f"{path}: combinations of {group.actions}: shared {sorted(unshared)} is no slot of "
                "the first action and of a later one"
            )
        for source in group.say:
            template = parser.parse(source)
            _check_slots(path, source, template, allowed, book)
            found = Combination(tuple(group.actions), frozenset(group.shared), template)
            utterances.combinations.append(found)


def _values(
    path: Path, content: _UtteranceFile, book: FlowBook
) -> Iterator[tuple[str, str, list[str]]]:
    """Yield slot, value and phrases of each enum value of a file."""
    for slot, by_value in content.values.items():
        for value, sources in by_value.items():
            _check_value(path, slot, value, book)
            yield slot, value, sources


def _check_action(path: Path, name: str, book: FlowBook) -> None:
    if name not in book.actions:
        raise CorpusError(f"{path}: unknown action {name}")


def _parse_result(path: Path, text: str, book: FlowBook) -> tuple[str, str]:
    """Parse `action result`."""
    action, _, result = text.partition(" ")
    if action not in book.actions or result not in get_args(Result):
        raise CorpusError(f"{path}: follow_ups: {text!r} is no action with its result")
    return action, result


def _check_slots(
    path: Path, source: str, template: Template, allowed: set[str], book: FlowBook
) -> None:
    if disallowed := (template.slots | set(template.fixed)) - allowed:
        raise CorpusError(
            f"{path}: template {source!r}: slot {sorted(disallowed)} is not allowed here; "
            f"allowed: {sorted(allowed)}"
        )
    for placeholder, value in template.fixed.items():
        slot = placeholder.rpartition(".")[-1]
        if book.slots[slot].kind is SlotKind.INTEGER:
            if not value.isdecimal():
                raise CorpusError(
                    f"{path}: template {source!r}: {placeholder}={value} is not a number"
                )
        else:
            _check_value(path, slot, value, book)


def _check_value(path: Path, slot: str, value: str, book: FlowBook) -> None:
    if slot not in book.slots or value not in book.slots[slot].values:
        raise CorpusError(f"{path}: slot {slot} has no value {value!r}")
