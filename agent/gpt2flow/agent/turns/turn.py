"""Turn loop: the model chooses actions, and code executes them.

The loop reads no clock, database or model. Callers pass `choose` and `execute`, so
durable workflows, tests and the evaluation run the same loop.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Protocol, TypeVar

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.grammar import action_grammar
from gpt2flow.agent.flows.prompt import (
    DONE,
    Choice,
    PromptState,
    Result,
    extend_prompt,
    first_prompt,
)
from gpt2flow.agent.flows.slots import named_orders

MAX_ACTIONS = 8
# Confidence at which the model is believed that a message has no further wish.
_SURE_END = 0.9


class StepResult(Protocol):
    """Result of an executed action, as far as the loop reads it."""

    @property
    def result(self) -> Result:
        """Result that the model reads."""

    @property
    def facts(self) -> frozenset[str]:
        """Facts after the action."""


_Step = TypeVar("_Step", bound=StepResult)

# Arguments of `Choose` are the number of the call in the turn, from 0, the prompt and the grammar;
# those of `Execute` are the position of the action in the turn, from 0, and the choice.
Choose = Callable[[int, str, str], Choice]
Execute = Callable[[int, Choice], _Step]


def run_turn(
    book: FlowBook,
    state: PromptState,
    message: str,
    choose: Choose,
    execute: Execute[_Step],
    *,
    event: str | None = None,
) -> list[_Step]:
    """Run the actions for a customer message or an event.

    A message gets at least one action, which need not be legal. An event gets actions as
    long as one is legal. A repeated action with the same arguments ends the turn, because
    the model is looping. One with a part of the earlier arguments says nothing new, so it is
    passed over. Where the model is not sure that it is done, and the message names an order that
    no action has, it has to choose once more. A turn has at most `MAX_ACTIONS` actions.

    Args:
        book: Loaded flows.
        state: State at the start of the turn.
        message: Normalized message, or the subject of the event.
        choose: Function that returns the model's choice.
        execute: Function that carries out a choice.
        event: Name of the event; None for a customer message.

    Returns:
        Return values of `execute`, one per action.
    """
    prompt = first_prompt(book.shared, state, message, event)
    facts, chosen, steps = state.facts, list[tuple[Choice, Result]](), list[_Step]()
    calls = count()
    for position in range(MAX_ACTIONS):
        # Customers wish what they like: code resolves what is not legal. An event has no wishes.
        legal = book.legal(facts, event)
        wishes = book.later_wishes if position else book.wishes
        names = wishes if event is None else legal
        if not names:
            break
        may_end = position > 0 and event is None
        grammar = action_grammar(book, names, message, legal=legal, may_end=may_end)
        choice = choose(next(calls), prompt, grammar)
        if event is None and (forgotten := _forgotten_orders(message, chosen, choice)):
            grammar = action_grammar(book, names, message, legal=legal, may_end=False)
            choice = choose(next(calls), prompt, grammar)
            if not forgotten & set(choice.arguments.values()):
                break
        if choice.action == DONE or any(choice == earlier for earlier, _ in chosen):
            break
        if (result := _result_of_more(chosen, choice)) is None:
            step = execute(position, choice)
            steps.append(step)
            result, facts = step.result, step.facts
        chosen.append((choice, result))
        prompt = extend_prompt(prompt, choice, result)
    return steps


def _forgotten_orders(
    message: str, chosen: Sequence[tuple[Choice, Result]], end: Choice
) -> set[str]:
    """Return the orders that no choice has, where the model is not sure that it is done."""
    if end.action != DONE or end.confidence >= _SURE_END:
        return set()
    used = {value for choice, _ in chosen for value in choice.arguments.values()}
    return set(named_orders(message)) - used


def _result_of_more(chosen: Sequence[tuple[Choice, Result]], choice: Choice) -> Result | None:
    """Return the result of an earlier choice that says more, None if there is none."""
    for earlier, result in chosen:
        more = earlier.arguments.items() >= choice.arguments.items()
        if earlier.action == choice.action and more:
            return result
    return None
