"""Generated turns agree with the agent's flows and grammar."""

import json
import re
from collections import Counter
from pathlib import Path

import llguidance
import pytest
from tests.support.turn_documents import Turn, parse_turn

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.grammar import action_grammar
from gpt2flow.agent.flows.prompt import CONFIRMATION, DONE, MAX_PAST, language, normalize
from gpt2flow.agent.flows.slots import SlotKind
from gpt2flow.training.corpus.corpus import make_flow_corpus


@pytest.fixture(scope="module")
def parsed(documents: list[str]) -> list[Turn]:
    return [parse_turn(document) for document in documents]


@pytest.mark.process
def test_every_action_is_one_that_the_grammar_allows(book: FlowBook, parsed: list[Turn]) -> None:
    """The oracle is the grammar that the agent passes to the server."""
    tokenizer = llguidance.LLTokenizer("byte")
    turns = parsed[:700]
    assert {language(turn.message) for turn in turns if not turn.event} == {"en", "zh"}
    for turn in turns:
        facts = turn.facts
        for text, result in turn.steps:
            names = book.legal(facts, turn.event) if turn.event else book.wishes
            matcher = llguidance.LLMatcher(tokenizer, action_grammar(book, names, turn.message))
            assert matcher.consume_tokens(tokenizer.tokenize_str(text)), (turn, text)
            assert matcher.is_accepting(), (turn, text)
            if result == "ok":
                facts = book.apply(json.loads(text)["action"], facts)


def test_each_turn_ends_with_its_only_done(parsed: list[Turn]) -> None:
    for turn in parsed:
        assert turn.steps[-1] == (json.dumps({"action": DONE}, separators=(",", ":")), "")
        assert all(result for _, result in turn.steps[:-1])
        assert len(turn.steps) > 1


def test_messages_are_normalized_as_by_the_agent(parsed: list[Turn]) -> None:
    assert all(turn.message == normalize(turn.message) for turn in parsed)


def test_a_legal_action_without_a_required_slot_results_in_a_question(
    book: FlowBook, parsed: list[Turn]
) -> None:
    for turn in parsed:
        for text, result in turn.steps[:-1]:
            choice = json.loads(text)
            missing = set(book.actions[choice["action"]].required) - set(choice)
            if result != "blocked":
                assert (result == "asked") == bool(missing), turn


def test_an_action_is_blocked_if_and_only_if_it_is_not_legal(
    book: FlowBook, parsed: list[Turn]
) -> None:
    for turn in parsed:
        facts = turn.facts
        for action, result in zip(turn.actions, turn.results, strict=True):
            assert (result == "blocked") == (action not in book.legal(facts, turn.event)), turn
            facts = book.apply(action, facts) if result == "ok" else facts
    blocked = [turn for turn in parsed if "blocked" in turn.results]
    assert len(blocked) > 0.1 * len(parsed)


def test_the_latest_actions_of_earlier_messages_are_in_the_prompt(
    book: FlowBook, parsed: list[Turn]
) -> None:
    lengths = Counter(len(turn.past) for turn in parsed if not turn.event)
    assert set(lengths) == set(range(MAX_PAST + 1))
    assert min(lengths.values()) > 0.05 * len(parsed)
    assert {action for turn in parsed for action, _ in turn.past} == set(book.wishes)
    assert not any(turn.past for turn in parsed if turn.event)


def test_each_kind_of_turn_has_its_share(parsed: list[Turn]) -> None:
    events = [turn for turn in parsed if turn.event]
    confirmations = [turn for turn in parsed if turn.awaiting and turn.awaiting[1] == CONFIRMATION]
    questions = [turn for turn in parsed if turn.awaiting and turn.awaiting[1] != CONFIRMATION]
    assert 0.01 < len(events) / len(parsed) < 0.04
    assert 0.04 < len(confirmations) / len(parsed) < 0.1
    assert 0.1 < len(questions) / len(parsed) < 0.25


def test_each_action_and_value_occurs_in_both_languages(
    book: FlowBook, documents: list[str]
) -> None:
    for code in ("en", "zh"):
        turns = [
            t for t in map(parse_turn, documents) if language(t.message) == code and not t.event
        ]
        choices = [choice for turn in turns for choice in turn.choices]
        seen = Counter(str(choice["action"]) for choice in choices)
        user_actions = [name for name, action in book.actions.items() if action.event is None]
        assert min(seen[name] for name in user_actions) > len(turns) / len(user_actions) / 3, seen
        for name, slot in book.slots.items():
            given = {choice[name] for choice in choices if name in choice}
            assert given >= set(slot.values) if slot.values else len(given) > 5, (code, name)
        assert len(turns) > 0.4 * len(documents)


def test_all_actions_of_an_event_are_taken(book: FlowBook, parsed: list[Turn]) -> None:
    events = [turn for turn in parsed if turn.event]
    assert {str(choice["action"]) for turn in events for choice in turn.choices} == {
        name for name, action in book.actions.items() if action.event
    }
    assert all(choice["order"] == turn.message for turn in events for choice in turn.choices)


def test_most_questions_of_the_agent_are_answered(book: FlowBook, parsed: list[Turn]) -> None:
    asked = [turn for turn in parsed if turn.awaiting and turn.awaiting[1] != CONFIRMATION]
    answered = [
        turn
        for turn in asked
        if turn.awaiting
        and any(c["action"] == turn.awaiting[0] and turn.awaiting[1] in c for c in turn.choices)
    ]
    assert 0.5 * len(asked) < len(answered) < 0.95 * len(asked)
    pairs = {turn.awaiting for turn in answered}
    assert pairs == {
        (name, slot)
        for name, action in book.actions.items()
        if action.event is None
        for slot in action.required
    }


def test_questions_for_confirmation_are_affirmed_denied_or_corrected(
    book: FlowBook, parsed: list[Turn]
) -> None:
    unsure = [turn for turn in parsed if "unsure" in turn.facts]
    assert {turn.awaiting for turn in unsure} == {
        (name, CONFIRMATION) for name in book.wishes if book.actions[name].question is not None
    }
    assert not [t for t in parsed if t not in unsure and t.awaiting and CONFIRMATION in t.awaiting]
    answers = Counter(turn.actions[0] for turn in unsure)
    assert answers["affirm"] > 0.3 * len(unsure)
    assert answers["deny"] > 0.1 * len(unsure)
    assert len(unsure) - answers["affirm"] - answers["deny"] > 0.1 * len(unsure)
    assert {turn.results[0] for turn in unsure if turn.actions[0] in ("affirm", "deny")} == {"ok"}


def test_several_intents_with_failures_between_them_occur(parsed: list[Turn]) -> None:
    results = [turn.results for turn in parsed]
    assert any(len(r) > 2 and r[0] == "ok" and r[1] == "refused" and r[2] == "ok" for r in results)
    assert any(len(r) > 2 and r[1] == "asked" and r[2] == "ok" for r in results)
    assert any(len(r) > 2 and r[1] == "blocked" and r[2] == "ok" for r in results)
    lengths = Counter(map(len, results))
    assert lengths[2] > 0.1 * len(parsed)
    assert lengths[3] > 0.01 * len(parsed)


def test_typos_never_change_codes_contacts_and_order_numbers(
    book: FlowBook, parsed: list[Turn]
) -> None:
    """Every such value is in canonical form."""
    exact = [
        name
        for name, slot in book.slots.items()
        if slot.kind in (SlotKind.CODE, SlotKind.CONTACT, SlotKind.ORDER)
    ]
    shapes = {
        "code": r"\d{6}",
        "contact": r"\+?\d{7,15}|[a-z0-9._-]+@[a-z0-9.-]+\.[a-z]+",
        "order": r"SO-\d{1,6}|last",
    }
    assert set(exact) == set(shapes)
    for turn in parsed:
        for choice in turn.choices:
            for name in set(exact) & set(choice):
                assert re.fullmatch(shapes[name], str(choice[name])), turn


def test_the_seed_determines_the_bytes_of_the_corpus(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_flow_corpus(tmp_path / name, 200, seed, valid_documents=50)
    texts = {name: (tmp_path / name / "train.txt").read_bytes() for name in "abc"}
    assert texts["a"] == texts["b"] != texts["c"]
    valid = (tmp_path / "a" / "valid.txt").read_text(encoding="utf-8")
    assert (tmp_path / "b" / "valid.txt").read_text(encoding="utf-8") == valid
    assert texts["a"].count(b"<|endoftext|>\n") == 200
    assert valid.count("<|endoftext|>\n") == 50
    assert not set(valid.splitlines()[:5]) & set(texts["a"].decode().splitlines())
