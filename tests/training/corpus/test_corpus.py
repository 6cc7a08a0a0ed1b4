"""Generated turns agree with the agent's flows and grammar."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import llguidance
import pytest

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.grammar import action_grammar
from gpt2flow.agent.flows.prompt import DONE, language, normalize
from gpt2flow.agent.flows.slots import SlotKind
from gpt2flow.training.corpus.corpus import make_flow_corpus

_DOCUMENT = re.compile(
    r"<\|state\|>(?P<state>[a-z_ ]+)<\|(?P<source>user|event)\|>(?P<message>.+?)"
    r"(?P<steps>(<\|act\|>\{[^<]*\}(<\|result\|>(ok|asked|refused))?)+)<\|endoftext\|>"
)
_STEP = re.compile(r"<\|act\|>(\{.*?\})(?:<\|result\|>(\w+))?(?=<)")


@dataclass(frozen=True)
class Turn:
    """Parsed document."""

    facts: frozenset[str]
    awaiting: tuple[str, str] | None
    event: str | None
    message: str
    steps: tuple[tuple[str, str], ...]

    @property
    def choices(self) -> Iterator[dict[str, str | int]]:
        """The actions before `done`."""
        return (json.loads(text) for text, result in self.steps if result)


def _parse(document: str) -> Turn:
    match = _DOCUMENT.fullmatch(document)
    assert match, document
    state, _, awaiting = match["state"].partition("awaiting ")
    event, message = (
        (None, match["message"])
        if match["source"] == "user"
        else match["message"].split(" ", maxsplit=1)
    )
    asked = tuple(awaiting.split())
    return Turn(
        frozenset(state.split()),
        (asked[0], asked[1]) if asked else None,
        event,
        message,
        tuple(_STEP.findall(match["steps"] + "<")),
    )


@pytest.fixture(scope="module")
def parsed(documents: list[str]) -> list[Turn]:
    return [_parse(document) for document in documents]


@pytest.mark.process
def test_every_action_is_one_that_the_grammar_allows(book: FlowBook, parsed: list[Turn]) -> None:
    """The oracle is the grammar that the agent passes to the server."""
    tokenizer = llguidance.LLTokenizer("byte")
    for turn in parsed[:700]:
        facts = turn.facts
        for text, result in turn.steps:
            legal = book.legal(facts, turn.event)
            matcher = llguidance.LLMatcher(tokenizer, action_grammar(book, legal, turn.message))
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


def test_an_action_without_a_required_slot_results_in_a_question(
    book: FlowBook, parsed: list[Turn]
) -> None:
    for turn in parsed:
        for text, result in turn.steps[:-1]:
            choice = json.loads(text)
            missing = set(book.actions[choice["action"]].required) - set(choice)
            assert (result == "asked") == bool(missing), turn


def test_each_action_and_value_occurs_in_both_languages(
    book: FlowBook, documents: list[str]
) -> None:
    for code in ("en", "zh"):
        turns = [t for t in map(_parse, documents) if language(t.message) == code and not t.event]
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
    asked = [turn for turn in parsed if turn.awaiting]
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


def test_several_intents_with_failures_between_them_occur(parsed: list[Turn]) -> None:
    results = [tuple(result for _, result in turn.steps[:-1]) for turn in parsed]
    assert any(len(r) > 2 and r[0] == "ok" and r[1] == "refused" and r[2] == "ok" for r in results)
    assert any(len(r) > 2 and r[1] == "asked" and r[2] == "ok" for r in results)
    lengths = Counter(map(len, results))
    assert lengths[2] > 0.1 * len(parsed)
    assert lengths[3] > 0.01 * len(parsed)


def test_one_message_leads_to_other_actions_in_another_state(parsed: list[Turn]) -> None:
    twins = [(a, b) for a, b in pairwise(parsed) if a.message == b.message and a.facts != b.facts]
    different = [pair for pair in twins if pair[0].steps[0][0] != pair[1].steps[0][0]]
    assert len(different) > 0.02 * len(parsed)


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
