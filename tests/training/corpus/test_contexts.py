"""Sampled contexts are ones that the agent itself reaches."""

import random
from collections import Counter

import pytest

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import CONFIRMATION, MAX_PAST
from gpt2flow.training.corpus.contexts import UNSURE, ContextSampler, reachable


@pytest.fixture(scope="module")
def questions(book: FlowBook) -> list[tuple[str, str]]:
    return [(name, slot) for name in book.wishes for slot in book.actions[name].required]


@pytest.fixture(scope="module")
def contexts(book: FlowBook, questions: list[tuple[str, str]]) -> ContextSampler:
    return ContextSampler(book, questions)


def test_all_states_that_actions_lead_to_are_reachable(
    book: FlowBook, contexts: ContextSampler
) -> None:
    assert {" ".join(sorted(facts)) for facts in contexts.states} == {
        "guest",
        "cart guest",
        "verifying",
        "cart verifying",
        "member",
        "cart member",
        "cart confirming member",
    }
    assert len(set(contexts.states)) == len(contexts.states)
    member = frozenset(["member", "cart"])
    assert set(reachable(book, member)) == set(contexts.states)
    assert reachable(book, member)[0] == member


def test_zero_to_three_earlier_actions_are_sampled(contexts: ContextSampler) -> None:
    rng = random.Random(1)
    guest = frozenset(["guest"])
    lengths = Counter(len(contexts.sample_past(guest, rng)) for _ in range(1000))
    assert set(lengths) == set(range(MAX_PAST + 1))
    assert min(lengths.values()) > 150


def test_earlier_actions_are_wishes_that_are_blocked_if_not_legal(
    book: FlowBook, contexts: ContextSampler
) -> None:
    rng = random.Random(1)
    results = Counter[str]()
    for facts in contexts.states * 100:
        for action, result in contexts.sample_past(facts, rng):
            assert action in book.wishes
            legal = action in book.legal(facts)
            assert result in (("ok", "refused") if legal else ("blocked",)), (facts, action)
            results[result] += 1
    assert results["ok"] > results["refused"] > 30
    assert results["ok"] > results["blocked"] > 30


def test_an_unsure_state_has_no_earlier_answer_that_was_not_blocked(
    contexts: ContextSampler,
) -> None:
    """The question is open now, so no earlier message has answered it."""
    rng = random.Random(1)
    facts = frozenset(["member", UNSURE])
    past = [each for _ in range(2000) for each in contexts.sample_past(facts, rng)]
    answers = [result for action, result in past if action in ("affirm", "deny")]
    assert set(answers) == {"blocked"}


def test_only_an_action_with_a_refusal_is_refused(book: FlowBook, contexts: ContextSampler) -> None:
    rng = random.Random(1)
    for action in book.wishes:
        refusals = {outcome.result for outcome in book.actions[action].outcomes.values()}
        results = {contexts.sample_result(action, rng) for _ in range(100)}
        assert results == refusals | {"ok"}, action


def test_an_open_question_is_the_latest_action_or_a_blocked_wish(
    book: FlowBook, contexts: ContextSampler, questions: list[tuple[str, str]]
) -> None:
    rng = random.Random(1)
    kinds = Counter[str]()
    for action, slot in questions:
        for facts in (facts for facts in contexts.states if action in book.legal(facts)):
            for _ in range(20):
                state = contexts.sample(facts, rng, awaiting=(action, slot))
                assert state.facts == facts
                assert state.awaiting == (action, slot)
                assert 1 <= len(state.past) <= MAX_PAST
                latest, result = state.past[-1]
                kinds[result] += 1
                if result == "asked":
                    assert latest == action
                else:
                    assert result == "blocked"
                    fallback = book.fallback(latest, facts)
                    assert fallback is not None
                    assert fallback.action == action
    assert min(kinds["asked"], kinds["blocked"]) > 100


def test_a_given_latest_action_ends_the_past_without_a_question(contexts: ContextSampler) -> None:
    rng = random.Random(1)
    latest = ("find_product", "refused")
    states = [contexts.sample(frozenset(["guest"]), rng, latest=latest) for _ in range(200)]
    assert {state.past[-1] for state in states} == {latest}
    assert {len(state.past) for state in states} == set(range(1, MAX_PAST + 1))
    assert {state.awaiting for state in states} == {None}


def test_a_few_messages_ignore_a_question_that_was_just_asked(
    book: FlowBook, contexts: ContextSampler, questions: list[tuple[str, str]]
) -> None:
    rng = random.Random(1)
    facts = frozenset(["member", "cart"])
    states = [contexts.sample(facts, rng) for _ in range(1000)]
    ignored = [state for state in states if state.awaiting is not None]
    assert 20 < len(ignored) < 120
    for state in ignored:
        assert state.awaiting in questions
        assert state.awaiting
        assert state.awaiting[0] in book.legal(facts)
        assert state.past[-1] == (state.awaiting[0], "asked")


def test_an_unsure_state_awaits_the_confirmation_of_an_action(
    book: FlowBook, contexts: ContextSampler
) -> None:
    rng = random.Random(1)
    facts = frozenset(["member"])
    state = contexts.sample_unsure("cancel_order", facts, rng)
    assert state.facts == facts | {UNSURE}
    assert state.awaiting == ("cancel_order", CONFIRMATION)
    assert state.past[-1] == ("cancel_order", "asked")
    assert {"affirm", "deny"} <= set(book.legal(state.facts))
    assert not any(UNSURE in facts for facts in contexts.states)


def test_only_actions_with_a_question_are_confirmable(
    book: FlowBook, contexts: ContextSampler
) -> None:
    asks = {name for name in book.actions if book.actions[name].question is not None}
    assert set(contexts.confirmable) == asks
    assert "cancel_order" in asks
    assert "find_product" not in asks
