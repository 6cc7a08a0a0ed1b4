"""The utterance files beside the flows: what customers say, per language."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.slots import SlotKind
from gpt2flow.files.documents import read_yaml
from gpt2flow.training.corpus.templates import Template, TemplateParser
from gpt2flow.training.errors import CorpusError

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")


class _UtteranceFile(BaseModel):
    """An `utterances.<language>.yaml` as it is written.

    `values` words the values of enum slots; `spans` lists values of span slots
    that the lexicon knows nothing of; `answers` reply to the question for a slot.
    """

    model_config = ConfigDict(extra="forbid")

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
    """Everything that is said in one language, over all flows."""

    actions: dict[str, list[Template]] = field(default_factory=dict)
    values: dict[str, dict[str, list[Template]]] = field(default_factory=dict)
    answers: dict[str, list[Template]] = field(default_factory=dict)
    spans: dict[str, list[Template]] = field(default_factory=dict)
    openers: list[Template] = field(default_factory=list)
    closers: list[Template] = field(default_factory=list)
    joiners: list[Template] = field(default_factory=list)


def load_utterances(folder: Path, book: FlowBook, language: Language) -> Utterances:
    """Load `*/utterances.<language>.yaml` of a folder of flows.

    Args:
        folder: where the flows are.
        book: the flows themselves.
        language: which files.

    Raises:
        CorpusError: a file says something invalid, or an action that a message
            can lead to has no utterances; names the file and the field.
    """
    said = Utterances()
    for path in sorted(folder.glob(f"*/utterances.{language}.yaml")):
        _add_file(said, path, book)
    for name, action in book.actions.items():
        if action.event is None and not said.actions.get(name):
            raise CorpusError(f"{folder}: no {language} utterances for action {name}")
    if not said.joiners:
        raise CorpusError(f"{folder}: no {language} joiners in any utterance file")
    for slot in {slot for name in said.actions for slot in book.actions[name].slots}:
        for value in book.slots[slot].values:
            if not said.values.get(slot, {}).get(value):
                raise CorpusError(f"{folder}: no {language} phrases for {slot} {value}")
    return said


def _add_file(said: Utterances, path: Path, book: FlowBook) -> None:
    content = read_yaml(path, _UtteranceFile, CorpusError)
    parser = TemplateParser(str(path), content.phrases)

    def parse(sources: Sequence[str], allowed: set[str]) -> list[Template]:
        templates = [parser.parse(source) for source in sources]
        for source, template in zip(sources, templates, strict=True):
            _check_slots(path, source, template, allowed, book)
        return templates

    for name, sources in content.actions.items():
        if name not in book.actions:
            raise CorpusError(f"{path}: no action {name}")
        slots = set(book.actions[name].slots)
        said.actions.setdefault(name, []).extend(parse(sources, slots))
    for slot, sources in content.answers.items():
        said.answers.setdefault(slot, []).extend(parse(sources, set(book.slots)))
    for slot, by_value in content.values.items():
        for value, sources in by_value.items():
            _check_value(path, slot, value, book)
            said.values.setdefault(slot, {}).setdefault(value, []).extend(parse(sources, set()))
    for slot, sources in content.spans.items():
        said.spans.setdefault(slot, []).extend(parse(sources, set()))
    said.openers += parse(content.openers, set())
    said.closers += parse(content.closers, set())
    said.joiners += parse(content.joiners, set())


def _check_slots(
    path: Path, source: str, template: Template, allowed: set[str], book: FlowBook
) -> None:
    if wrong := (template.slots | set(template.fixed)) - allowed:
        raise CorpusError(f"{path}: template {source!r}: no slot {sorted(wrong)} here")
    for slot, value in template.fixed.items():
        if book.slots[slot].kind is SlotKind.INTEGER:
            if not value.isdecimal():
                raise CorpusError(f"{path}: template {source!r}: {slot}={value} is no number")
        else:
            _check_value(path, slot, value, book)


def _check_value(path: Path, slot: str, value: str, book: FlowBook) -> None:
    if slot not in book.slots or value not in book.slots[slot].values:
        raise CorpusError(f"{path}: slot {slot} has no value {value!r}")
