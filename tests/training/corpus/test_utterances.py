"""Shipped utterances match the flows; mismatches are reported by name."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.slots import SlotKind, candidates
from gpt2flow.training.corpus.corpus import FLOWS
from gpt2flow.training.corpus.lexicon import load_lexicon
from gpt2flow.training.corpus.utterances import LANGUAGES, Language, load_utterances
from gpt2flow.training.errors import CorpusError

Write = Callable[[str, str], Path]


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_customer_action_has_utterances(book: FlowBook, language: Language) -> None:
    utterances = load_utterances(FLOWS, book, language)
    user_actions = {name for name, action in book.actions.items() if action.event is None}
    assert set(utterances.actions) == user_actions
    assert utterances.openers
    assert utterances.closers


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_agent_reads_every_number_word(language: Language) -> None:
    for word, number in load_lexicon(language).number_words.items():
        assert str(number) in candidates(SlotKind.INTEGER, word), word


@pytest.mark.parametrize(
    "text, problem",
    [
        ("actions: {fly: [up]}", "unknown action fly"),
        ("actions: {track_order: ['{code}']}", "'{code}': slot ['code'] is not allowed here"),
        ("actions: {track_order: ['a => reason=late']}", "slot ['reason'] is not allowed here"),
        ("actions: {request_refund: ['a => reason=hm']}", "slot reason has no value 'hm'"),
        ("actions: {add_to_cart: ['a => quantity=b']}", "quantity=b is not a number"),
        ("values: {reason: {hm: [a]}}", "slot reason has no value 'hm'"),
        ("answers: {order: ['(a']}", "template '(a': ')' is missing"),
        ("openers: ['{order}']", "slot ['order'] is not allowed here"),
        ("opener: [a]", "field opener: Extra inputs are not permitted"),
        ("actions: {greet: a}", "field actions.greet: Input should be a valid list"),
        ("actions: [", "while parsing"),
        ("actions: {greet: [hi]}", "no en utterances for action"),
    ],
)
def test_an_invalid_utterance_file_is_named(
    book: FlowBook, write: Write, text: str, problem: str
) -> None:
    path = write("order/utterances.en.yaml", text)
    with pytest.raises(CorpusError) as caught:
        load_utterances(path.parent.parent, book, "en")
    assert problem in str(caught.value)
    assert str(path.parent.parent) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_booleans_stay_words(book: FlowBook, write: Write) -> None:
    path = write("x/utterances.en.yaml", "actions: {greet: [yes, no, on, 1]}")
    with pytest.raises(CorpusError, match="no en utterances for action"):
        load_utterances(path.parent.parent, book, "en")
    path.write_text("phrases: {on: [no]}\nactions: {greet: [yes, 1]}\nclosers: [<on>]")
    with pytest.raises(CorpusError, match="no en utterances for action"):
        load_utterances(path.parent.parent, book, "en")


def test_a_missing_lexicon_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"en\.yaml: .*No such file"):
        load_lexicon("en", tmp_path)
