"""Requests to execute an action, and events."""

from dataclasses import dataclass, field
from typing import NamedTuple

from gpt2flow.agent.flows.prompt import Arguments, Choice
from gpt2flow.agent.report import Wanted
from gpt2flow.agent.wording import Language

# A message that is not understood leaves the open question unanswered, and so does small talk.
CLARIFY = "clarify"
# Hands a customer over to a person.
ESCALATE = "escalate"
# Says yes to what the agent asked about.
AFFIRM = "affirm"
# Says no to what the agent asked about.
DENY = "deny"
# Adds a product, whose number code can read.
ADD_TO_CART = "add_to_cart"
# Tells price and stock of a product.
FIND_PRODUCT = "find_product"
SMALL_TALK = ("greet", CLARIFY)


class Event(NamedTuple):
    """Event that concerns an order.

    Attributes:
        name: Name of the event.
        subject: Number of the order.
    """

    name: str
    subject: str


@dataclass(frozen=True)
class Task:
    """Request to execute an action.

    Attributes:
        key: Idempotency key; a key executes at most once.
        session: Id of the conversation.
        message: Normalized message, or the subject of the event.
        choice: Action and arguments to execute.
        language: Language of the message.
        pending_arguments: Arguments given before the question that this action answers.
        is_first: Whether this is the first action of a message, small talk aside.
        answers: Slot that the message was asked for; None if it answers no question.
        taken: Actions that the message has led to so far.
        resumed: Earlier wish that the action fulfils; None for the model's choice.
        is_rest: Whether code read the wish from what the model left of the message.
        is_detour: Whether the action is on the way to a wish that is resumed later.
        event: Event that the action handles; None for a customer message.
        denied: Choice that the message denies; None if it denies nothing.
        is_compensation: Whether the action undoes the one that raised the event. Only
            code sets this, so the action need not be legal.
        turn: Idempotency key of the message's turn; None for an event.
    """

    key: str
    session: str
    message: str
    choice: Choice
    language: Language = "en"
    pending_arguments: Arguments = field(default_factory=dict)
    is_first: bool = False
    answers: str | None = None
    taken: frozenset[str] = frozenset()
    resumed: Wanted | None = None
    is_rest: bool = False
    is_detour: bool = False
    event: Event | None = None
    denied: Choice | None = None
    is_compensation: bool = False
    turn: str | None = None

    @property
    def given(self) -> Arguments:
        """Arguments of the choice, and those given before its question."""
        return self.pending_arguments | self.choice.arguments
