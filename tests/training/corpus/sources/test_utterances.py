"""Shipped utterances match the flows; mismatches are reported by name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.slots import SlotKind, candidates
from gpt2flow.training.corpus.corpus import FLOWS
from gpt2flow.training.corpus.sources.lexicon import load_lexicon
from gpt2flow.training.corpus.sources.utterances import (
    LANGUAGES,
    Language,
    load_utterances,
    wish_and_slot,
)
from gpt2flow.training.errors import CorpusError

Write = Callable[[str, str], Path]


def _follow_up(action: str = "greet", after: str = "[greet ok]", say: str = "[hi]") -> str:
    return f"follow_ups: [{{action: {action}, after: {after}, say: {say}}}]"


def _combination(
    actions: str = "[cancel_order, track_order]", say: str = "'{1.order} {2.order}'"
) -> str:
    return f"combinations: [{{actions: {actions}, say: [{say}]}}]"


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_customer_action_has_utterances(book: FlowBook, language: Language) -> None:
    utterances = load_utterances(FLOWS, book, language)
    user_actions = {name for name, action in book.actions.items() if action.event is None}
    assert set(utterances.actions) == user_actions
    assert utterances.openers
    assert utterances.closers
    assert utterances.corrections
    assert utterances.retractions


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_follow_up_needs_a_result_that_the_earlier_action_has(
    book: FlowBook, language: Language
) -> None:
    utterances = load_utterances(FLOWS, book, language)
    assert utterances.follow_ups
    for action, follow_ups in utterances.follow_ups.items():
        for follow_up in follow_ups:
            earlier, result = follow_up.after
            spec = book.actions[earlier]
            results = {outcome.result for outcome in spec.outcomes.values()}
            assert action == follow_up.action
            assert {action, earlier} <= set(book.wishes)
            assert result in results or (result == "asked" and spec.required), follow_up.after


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_combination_says_what_each_of_its_wishes_needs(
    book: FlowBook, language: Language
) -> None:
    """A wish names its product, or shares that of the first."""
    combinations = load_utterances(FLOWS, book, language).combinations
    assert len(combinations) > 500
    for combination in combinations:
        named = {wish_and_slot(name) for name in combination.template.slots}
        for wish, action in enumerate(combination.actions):
            needs = "product" in book.actions[action].required
            shares = "product" in combination.shared
            assert not needs or shares or (wish, "product") in named, combination


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
        ("corrections: ['no, {order}']", "slot ['order'] is not allowed here"),
        ("retractions: ['(a']", "template '(a': ')' is missing"),
        (_follow_up(action="fly"), "unknown action fly"),
        (_follow_up(after="[fly ok]"), "follow_ups: 'fly ok' is no action with its result"),
        (_follow_up(after="[greet]"), "follow_ups: 'greet' is no action with its result"),
        (_follow_up(after="[greet fine]"), "'greet fine' is no action with its result"),
        (_follow_up(after="[greet ok ok]"), "'greet ok ok' is no action with its result"),
        (_follow_up(after="[]"), "field follow_ups.0.after: List should have at least 1 item"),
        (_follow_up(say="[]"), "field follow_ups.0.say: List should have at least 1 item"),
        (_follow_up(say="['{order}']"), "'{order}': slot ['order'] is not allowed here"),
        (_combination(actions="[fly]"), "unknown action fly"),
        (_combination(actions="[]"), "field combinations.0.actions: List should have at least 1"),
        (_combination(say="'{order}'"), "slot ['order'] is not allowed here"),
        (_combination(say="'{3.order}'"), "slot ['3.order'] is not allowed here"),
        (_combination(say="'{1.code}'"), "slot ['1.code'] is not allowed here"),
        (_combination(say="'{not.speed}'"), "slot ['not.speed'] is not allowed here"),
        (_combination(say="'a => 1.reason=late'"), "slot ['1.reason'] is not allowed here"),
        (
            _combination(actions="[request_refund]", say="'a => 1.reason=hm'"),
            "slot reason has no value 'hm'",
        ),
        (
            _combination(actions="[add_to_cart]", say="'a => 1.quantity=b'"),
            "1.quantity=b is not a number",
        ),
        (
            "combinations: [{actions: [track_order, log_out], shared: [order], say: [a]}]",
            "shared ['order'] is no slot of the first action and of a later one",
        ),
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


@pytest.mark.parametrize("name", ["utterances", "dialogue", "combinations"])
def test_a_file_adds_to_those_beside_it(book: FlowBook, write: Write, name: str) -> None:
    content = {
        "actions": {action: ["a"] for action in book.wishes},
        "values": {
            name: {value: ["a"] for value in slot.values}
            for name, slot in book.slots.items()
            if slot.values
        },
        "joiners": ["and"],
        "retractions": ["no"],
    }
    folder = write("a/utterances.en.yaml", json.dumps(content)).parent.parent
    more = _follow_up(action="track_order", after="[cancel_order refused, greet ok]", say="[b, c]")
    write(f"b/{name}.en.yaml", f"actions: {{greet: [b]}}\nretractions: [wait]\n{more}")
    write(f"b/{name}.zh.yaml", "actions: {greet: [c]}")
    utterances = load_utterances(folder, book, "en")
    assert [template.nodes for template in utterances.actions["greet"]] == [["a"], ["b"]]
    assert [template.nodes for template in utterances.retractions] == [["no"], ["wait"]]
    assert [(each.after, each.template.nodes) for each in utterances.follow_ups["track_order"]] == [
        (("cancel_order", "refused"), ["b"]),
        (("cancel_order", "refused"), ["c"]),
        (("greet", "ok"), ["b"]),
        (("greet", "ok"), ["c"]),
    ]


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
