"""The loop of a turn, with a model and a shop that are made up."""

from dataclasses import dataclass

import pytest

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.grammar import action_grammar
from gpt2flow.agent.flows.prompt import Choice, Result, Situation, document
from gpt2flow.agent.turns.turn import MAX_ACTIONS, run_turn

MEMBER = Situation(frozenset({"member"}))


@dataclass(frozen=True)
class Done:
    choice: Choice
    result: Result
    facts: frozenset[str]


class Stage:
    """Chooses from a list; every action succeeds unless a result is given."""

    def __init__(self, book: FlowBook, *choices: Choice | str, **results: Result) -> None:
        self.book = book
        self.choices = [Choice(c) if isinstance(c, str) else c for c in choices]
        self.results = results
        self.asked: list[tuple[str, str]] = []
        self.facts: frozenset[str] = frozenset()

    def run(self, situation: Situation, message: str, event: str | None = None) -> list[Done]:
        self.facts = situation.facts
        return run_turn(self.book, situation, message, self._choose, self._execute, event=event)

    def _choose(self, position: int, prompt: str, grammar: str) -> Choice:
        self.asked.append((prompt, grammar))
        return self.choices[position]

    def _execute(self, position: int, choice: Choice) -> Done:
        assert choice == self.choices[position]
        result = self.results.get(choice.action, "ok")
        if result == "ok":
            self.facts = self.book.apply(choice.action, self.facts)
        return Done(choice, result, self.facts)


def test_prompts_are_prefixes_of_the_training_document(book: FlowBook) -> None:
    add = Choice("add_to_cart", {"product": "tea"})
    check_out = Choice("check_out", {"address": "5 Oak Rd"})
    stage = Stage(book, add, check_out, "confirm_order", "done", confirm_order="refused")
    done = stage.run(MEMBER, "tea to 5 Oak Rd, yes")
    steps = [(step.choice, step.result) for step in done]
    whole = document(book.shared, MEMBER, "tea to 5 Oak Rd, yes", steps)
    prompts = [prompt for prompt, _ in stage.asked]
    assert prompts[-1] + '{"action":"done"}<|endoftext|>' == whole
    assert all(whole.startswith(prompt) for prompt in prompts)


def test_what_is_legal_follows_the_state(book: FlowBook) -> None:
    stage = Stage(book, Choice("add_to_cart", {"product": "tea"}), "check_out", "done")
    stage.run(MEMBER, "tea")
    legal = [
        {name for name in book.actions if f'{{\\"action\\":\\"{name}\\"' in grammar}
        for _, grammar in stage.asked
    ]
    assert "check_out" not in legal[0]
    assert "check_out" in legal[1]
    assert "confirm_order" not in legal[1]
    assert "confirm_order" in legal[2]


def test_message_gets_at_least_one_action(book: FlowBook) -> None:
    stage = Stage(book, "greet", "done")
    stage.run(MEMBER, "hi")
    legal = book.legal(MEMBER.facts)
    assert stage.asked[0][1] == action_grammar(book, legal, "hi", may_end=False)
    assert stage.asked[1][1] == action_grammar(book, legal, "hi", may_end=True)


@pytest.mark.parametrize("event, actions", [(None, 1), ("order_submitted", 2)])
def test_event_ends_only_when_all_is_done(book: FlowBook, event: str | None, actions: int) -> None:
    stage = Stage(book, "assign_courier", "send_delivery_details")
    if event is None:
        stage = Stage(book, "greet", "done")
    situation = Situation(frozenset({"submitted" if event else "guest"}))
    assert len(stage.run(situation, "SO-1001", event)) == actions
    if event:
        assert all('{\\"action\\":\\"done\\"' not in grammar for _, grammar in stage.asked)


def test_event_whose_work_was_done_asks_nothing(book: FlowBook) -> None:
    stage = Stage(book)
    assert stage.run(Situation(frozenset()), "SO-1001", "order_submitted") == []
    assert stage.asked == []


def test_repetition_ends_the_turn(book: FlowBook) -> None:
    tea = Choice("find_product", {"product": "tea"})
    stage = Stage(book, tea, Choice("find_product", {"product": "te"}), tea, "view_cart")
    assert len(stage.run(MEMBER, "tea")) == 2


def test_turn_has_a_longest(book: FlowBook) -> None:
    choices = [Choice("find_product", {"product": "tea"[:n]}) for n in (1, 2, 3)]
    choices += [Choice("add_to_cart", {"product": "tea"[:n]}) for n in (1, 2, 3)]
    choices += [Choice("view_cart"), Choice("greet"), Choice("escalate")]
    assert len(Stage(book, *choices).run(MEMBER, "tea")) == MAX_ACTIONS
