"""Turn loop, with scripted choices and results."""

from dataclasses import dataclass

import pytest

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.grammar import action_grammar
from gpt2flow.agent.flows.prompt import Choice, PromptState, Result, document
from gpt2flow.agent.turns.turn import MAX_ACTIONS, run_turn

MEMBER = PromptState(frozenset({"member"}))


@dataclass(frozen=True)
class ExecutedStep:
    choice: Choice
    result: Result
    facts: frozenset[str]


class ScriptedTurn:
    """Turn with scripted choices; actions succeed unless a result is given."""

    def __init__(self, book: FlowBook, *choices: Choice | str, **results: Result) -> None:
        self.book = book
        self.choices = [Choice(c) if isinstance(c, str) else c for c in choices]
        self.results = results
        self.calls: list[tuple[str, str]] = []
        self.facts: frozenset[str] = frozenset()

    def run(self, state: PromptState, message: str, event: str | None = None) -> list[ExecutedStep]:
        self.facts = state.facts
        return run_turn(self.book, state, message, self._choose, self._execute, event=event)

    def _choose(self, call: int, prompt: str, grammar: str) -> Choice:
        self.calls.append((prompt, grammar))
        return self.choices[call]

    def _execute(self, position: int, choice: Choice) -> ExecutedStep:
        assert choice in self.choices[position:]
        result = self.results.get(choice.action, "ok")
        if result == "ok":
            self.facts = self.book.apply(choice.action, self.facts)
        return ExecutedStep(choice, result, self.facts)


def test_prompts_are_prefixes_of_the_training_document(book: FlowBook) -> None:
    add = Choice("add_to_cart", {"product": "tea"})
    check_out = Choice("check_out", {"address": "5 Oak Rd"})
    turn = ScriptedTurn(book, add, check_out, "confirm_order", "done", confirm_order="refused")
    done = turn.run(MEMBER, "tea to 5 Oak Rd, yes")
    steps = [(step.choice, step.result) for step in done]
    whole = document(book.shared, MEMBER, "tea to 5 Oak Rd, yes", steps)
    prompts = [prompt for prompt, _ in turn.calls]
    assert prompts[-1] + '{"action":"done"}<|endoftext|>' == whole
    assert all(whole.startswith(prompt) for prompt in prompts)


def test_customer_may_wish_what_is_not_legal_yet(book: FlowBook) -> None:
    turn = ScriptedTurn(book, "check_out", "done")
    turn.run(PromptState(frozenset({"guest"})), "tea")
    grammar = turn.calls[0][1]
    assert all(f'{{\\"action\\":\\"{name}\\"' in grammar for name in book.wishes)
    assert '{\\"action\\":\\"assign_courier\\"' not in grammar


def test_event_gets_legal_actions_alone(book: FlowBook) -> None:
    turn = ScriptedTurn(book, "assign_courier", "send_delivery_details")
    turn.run(PromptState(frozenset({"submitted"})), "SO-1001", "order_submitted")
    assert '{\\"action\\":\\"send_delivery_details\\"' not in turn.calls[0][1]


def test_message_gets_at_least_one_action(book: FlowBook) -> None:
    turn = ScriptedTurn(book, "greet", "done")
    turn.run(MEMBER, "hi")
    assert turn.calls[0][1] == action_grammar(book, book.wishes, "hi", may_end=False)
    assert turn.calls[1][1] == action_grammar(book, book.later_wishes, "hi", may_end=True)


def test_small_talk_opens_a_message_or_is_not_there(book: FlowBook) -> None:
    turn = ScriptedTurn(book, "affirm", "escalate", "done")
    turn.run(MEMBER, "yes, and a person please")
    first, second, _ = (grammar for _, grammar in turn.calls)
    for name in ("greet", "clarify", "affirm", "deny"):
        assert f'{{\\"action\\":\\"{name}\\"' in first
        assert f'{{\\"action\\":\\"{name}\\"' not in second
    assert '{\\"action\\":\\"escalate\\"' in second


def test_action_with_a_part_of_earlier_arguments_is_passed_over(book: FlowBook) -> None:
    add = Choice("add_to_cart", {"product": "tea", "quantity": 2})
    less, other = Choice("add_to_cart", {"product": "tea"}), Choice("add_to_cart", {"quantity": 3})
    two = Choice("add_to_cart", {"quantity": 2})
    turn = ScriptedTurn(book, add, less, other, "view_cart", two, "done")
    done = turn.run(MEMBER, "2 tea, 3")
    # After something else, the customer may mean it.
    assert [step.choice for step in done] == [add, other, Choice("view_cart"), two]
    assert turn.calls[2][0].endswith(f"{less.text}<|result|>ok<|act|>")


@pytest.mark.parametrize("event, actions", [(None, 1), ("order_submitted", 2)])
def test_event_ends_when_no_action_is_legal(
    book: FlowBook, event: str | None, actions: int
) -> None:
    turn = ScriptedTurn(book, "assign_courier", "send_delivery_details")
    if event is None:
        turn = ScriptedTurn(book, "greet", "done")
    state = PromptState(frozenset({"submitted" if event else "guest"}))
    assert len(turn.run(state, "SO-1001", event)) == actions
    if event:
        assert all('{\\"action\\":\\"done\\"' not in grammar for _, grammar in turn.calls)


def test_handled_event_makes_no_model_call(book: FlowBook) -> None:
    turn = ScriptedTurn(book)
    assert turn.run(PromptState(frozenset()), "SO-1001", "order_submitted") == []
    assert turn.calls == []


def test_repeated_action_ends_the_turn(book: FlowBook) -> None:
    tea = Choice("find_product", {"product": "tea"})
    turn = ScriptedTurn(book, tea, Choice("find_product", {"product": "te"}), tea, "view_cart")
    assert len(turn.run(MEMBER, "tea")) == 2


def test_turn_has_a_maximum_number_of_actions(book: FlowBook) -> None:
    choices = [Choice("find_product", {"product": "tea"[:n]}) for n in (1, 2, 3)]
    choices += [Choice("add_to_cart", {"product": "tea"[:n]}) for n in (1, 2, 3)]
    choices += [Choice("view_cart"), Choice("greet"), Choice("escalate")]
    assert len(ScriptedTurn(book, *choices).run(MEMBER, "tea")) == MAX_ACTIONS
