"""Utterance files of the flows: customer phrasings of actions and slot values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.slots import SlotKind
from gpt2flow.files.documents import StrictModel, read_yaml
from gpt2flow.training.corpus.templates import Template, TemplateParser
from gpt2flow.training.errors import CorpusError

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")


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
    """

    phrases: dict[str, list[str]] = {}
    actions: dict[str, list[str]] = {}
    values: dict[str, dict[str, list[str]]] = {}
    answers: dict[str, list[str]] = {}
    spans: dict[str, list[str]] = {}
    openers: list[str] = []
    closers: list[str] = []
    joiners: list[str] = []


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


def load_utterances(directory: Path, book: FlowBook, language: Language) -> Utterances:
    """Load every `*/utterances.<language>.yaml` of a directory of flows.

    Args:
        directory: Directory of the flows.
        book: Flows loaded from it.
        language: Language of the files to load.

    Raises:
        CorpusError: A file is invalid, or utterances are missing for an action of customers or a
            slot value. The message names the file and the field.
    """
    utterances = Utterances()
    for path in sorted(directory.glob(f"*/utterances.{language}.yaml")):
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
        if name not in book.actions:
            raise CorpusError(f"{path}: unknown action {name}")
        slots = set(book.actions[name].slots)
        utterances.actions.setdefault(name, []).extend(parse(sources, slots))
    for slot, sources in content.answers.items():
        utterances.answers.setdefault(slot, []).extend(parse(sources, set(book.slots)))
    for slot, by_value in content.values.items():
        for value, sources in by_value.items():
            _check_value(path, slot, value, book)
            utterances.values.setdefault(slot, {}).setdefault(value, []).extend(
                parse(sources, set())
            )
    for slot, sources in content.spans.items():
        utterances.spans.setdefault(slot, []).extend(parse(sources, set()))
    utterances.openers += parse(content.openers, set())
    utterances.closers += parse(content.closers, set())
    utterances.joiners += parse(content.joiners, set())


def _check_slots(
    path: Path, source: str, template: Template, allowed: set[str], book: FlowBook
) -> None:
    if disallowed := (template.slots | set(template.fixed)) - allowed:
        raise CorpusError(
            f"{path}: template {source!r}: slot {sorted(disallowed)} is not allowed here; "
            f"allowed: {sorted(allowed)}"
        )
    for slot, value in template.fixed.items():
        if book.slots[slot].kind is SlotKind.INTEGER:
            if not value.isdecimal():
                raise CorpusError(f"{path}: template {source!r}: {slot}={value} is not a number")
        else:
            _check_value(path, slot, value, book)


def _check_value(path: Path, slot: str, value: str, book: FlowBook) -> None:
    if slot not in book.slots or value not in book.slots[slot].values:
        raise CorpusError(f"{path}: slot {slot} has no value {value!r}")
