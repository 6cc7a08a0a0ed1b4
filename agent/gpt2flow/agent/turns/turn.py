"""One turn: the model chooses, code carries out, until the model says it is done.

Nothing here reads a clock, a database or a model: `choose` and `execute` are
handed in, so that a durable workflow, a test and the evaluation of the model
run the same loop.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.grammar import action_grammar
from gpt2flow.agent.flows.prompt import DONE, Choice, Result, Situation, continuation, opening

MAX_ACTIONS = 8


class Executed(Protocol):
    """What the loop has to know about an action that was carried out."""

    @property
    def result(self) -> Result:
        """What the model is told."""

    @property
    def facts(self) -> frozenset[str]:
        """What is true now."""


Step = TypeVar("Step", bound=Executed)

# Each is given the position of the action in the turn, from 0.
Choose = Callable[[int, str, str], Choice]
Execute = Callable[[int, Choice], Step]


def run_turn(
    book: FlowBook,
    situation: Situation,
    message: str,
    choose: Choose,
    execute: Execute[Step],
    *,
    event: str | None = None,
) -> list[Step]:
    """Carry out what a message, or an event, calls for.

    A message gets at least one action. An event gets all that its flow has for
    it. An action chosen twice with the same arguments ends the turn: the model
    goes in circles.

    Args:
        book: the flows.
        situation: what is true at the beginning.
        message: the normalised message; what the event is about, for an event.
        choose: asks the model, given the prompt and the grammar.
        execute: carries out an action.
        event: the event's name, if no customer speaks.

    Returns:
        What `execute` returned, for each action.
    """
    prompt = opening(book.shared, situation, message, event)
    facts, chosen, steps = situation.facts, set[str](), list[Step]()
    for position in range(MAX_ACTIONS):
        legal = book.legal(facts, event)
        if not legal:
            break
        may_end = position > 0 and event is None
        choice = choose(position, prompt, action_grammar(book, legal, message, may_end=may_end))
        if choice.action == DONE or choice.text in chosen:
            break
        chosen.add(choice.text)
        step = execute(position, choice)
        steps.append(step)
        prompt += continuation(choice, step.result)
        facts = step.facts
    return steps
