"""Doubt: when the agent asks "did you mean …?", and how."""

import re
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.naming import is_negated, says_no
from gpt2flow.agent.flows.prompt import CONFIRMATION, Arguments, Choice
from gpt2flow.agent.flows.schema import Action
from gpt2flow.agent.flows.slots import named_orders
from gpt2flow.agent.operations import Context
from gpt2flow.agent.operations.lookup import latest_order
from gpt2flow.agent.shop import CustomerSession
from gpt2flow.agent.turns.execution.task import DENY, SMALL_TALK, Task
from gpt2flow.agent.wording import Language

# Questions about the same action in a row.
_MAX_QUESTIONS = 2
# Orders of which one may correct the other, and the characters after the last that may say so.
_RIVALS, _AFTER_ORDER = 2, 20
_CORRECTION = re.compile(
    r"\b(?:sorry|sry|oops|whoops|i mean|i meant|meant|typo|wait|hang on|hold on|scratch that|rather"
    r"|correction|actually|fat fingers|my bad)\b|不对|错了|说错|打错|写错|应该是|记错|更正",
    re.IGNORECASE,
)


class Doubt:
    """Judge of whether a customer has to confirm an action first.

    Args:
        book: Loaded flows.
        confirm_below: Confidence below which the agent asks, from 0 to 1; 0 never asks.
    """

    def __init__(self, book: FlowBook, confirm_below: float) -> None:
        self._book = book
        self._confirm_below = confirm_below

    def is_unsure(self, choice: Choice, message: str) -> bool:
        """Return whether the flow of a choice wants it confirmed.

        Args:
            choice: Choice of the model.
            message: Message that it was read from.
        """
        spec = self._book.actions[choice.action]
        if spec.question is None or spec.confirm == "never":
            return False
        if spec.confirm == "always":
            return True
        is_unsure = choice.confidence < min(self._confirm_below, spec.unsure_below)
        return is_unsure or (self._confirm_below > 0 and _is_contradicted(spec, choice, message))

    def must_ask(self, context: Context, task: Task, used: Arguments) -> bool:
        """Return whether the customer has to confirm an action first.

        Args:
            context: Context of the action.
            task: Request to execute it.
            used: Arguments that it would run with.
        """
        is_confirmed = task.resumed is not None and task.resumed.confirmed
        if task.event is not None or is_confirmed:
            return False
        return _is_denied(context, task, used) or self.is_unsure(task.choice, task.message)


def _is_denied(context: Context, task: Task, used: Arguments) -> bool:
    """Return whether a message denies the action that it leads to again."""
    denied = task.denied
    if denied is None and task.answers == CONFIRMATION and says_no(task.message):
        denied = Choice(task.choice.action, task.pending_arguments)
    if denied is None or denied.action != task.choice.action:
        return False
    known = {slot: latest_order(context, str(value)) for slot, value in used.items()}
    return all(known.get(slot) == str(value) for slot, value in denied.arguments.items())


def _is_contradicted(spec: Action, choice: Choice, message: str) -> bool:
    """Return whether a message contradicts the action that was read from it.

    It says no to the action, or corrects the order that it names by another one.
    """
    if is_negated(spec.words, message):
        return True
    orders, used = named_orders(message), set(map(str, choice.arguments.values()))
    if len(orders) < _RIVALS or len(used & set(orders)) != 1:
        return False
    places = [message.find(order.removeprefix("SO-")) for order in orders]
    return _CORRECTION.search(message[min(places) : max(places) + _AFTER_ORDER]) is not None


def may_ask(book: FlowBook, session: CustomerSession, wish: Choice, message: str | None) -> bool:
    """Return whether the agent may ask about an action.

    About the same values it asks once, and about the same action or message twice in a row.

    Args:
        book: Loaded flows.
        session: Session to ask.
        wish: Action with the values that it would use.
        message: Message that it was read from; None for an earlier wish that goes on.
    """
    said = session.awaiting_message
    is_said_again = bool(said and message) and str(said) in str(message)
    if session.doubted != wish.action and not is_said_again:
        return True
    past = _latest_doubts(session) if is_said_again else session.past
    asked = [
        Choice(entry["action"], entry["arguments"])
        for entry in past
        if entry["result"] == "asked"
        and (is_said_again or entry["action"] == wish.action)
        # Else a value was asked for.
        and set(book.actions[entry["action"]].required) <= entry["arguments"].keys()
    ]
    return len(asked) < _MAX_QUESTIONS and wish not in asked


def _latest_doubts(session: CustomerSession) -> list[dict[str, Any]]:
    """Return the latest actions, back to a wish that was carried out."""
    return list(
        takewhile(
            lambda entry: (
                entry["action"] in (DENY, *SMALL_TALK) or entry["result"] in ("asked", "blocked")
            ),
            reversed(session.past),
        )
    )


def open_question(session: CustomerSession, action: str, used: Arguments, message: str) -> None:
    """Store that the session is asked whether an action is meant."""
    session.awaiting_message = message
    session.doubted = session.awaiting_action = action
    session.awaiting_slot = CONFIRMATION
    session.awaiting_arguments = dict(used)


def question_text(
    book: FlowBook,
    action: str,
    used: Arguments,
    fields: Mapping[str, str | int],
    language: Language,
) -> str:
    """Return the question whether an action is meant.

    Args:
        book: Loaded flows.
        action: Action with a `question`.
        used: Arguments that it would use.
        fields: Fields of its successful outcome.
        language: Language of the question.
    """
    question = book.actions[action].question
    assert question is not None
    words = {
        slot: names[language]
        for slot, value in used.items()
        if (names := book.slots[slot].names.get(str(value)))
    }
    # The outcome says which order `last` is.
    return question[language].format(**{**used, **fields, **words})


class Trial:
    """Savepoint around an operation, with the side effects in its context.

    Args:
        context: Context that the operation runs in.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._savepoint = context.db.begin_nested()
        self._changes = len(context.changes)
        self._timers = len(context.timers)
        self._payments = len(context.payments)
        self._recipient = context.recipient

    def keep(self) -> None:
        """Keep what the operation did."""
        self._savepoint.commit()

    def undo(self) -> None:
        """Undo what the operation did."""
        self._context.db.flush()
        self._savepoint.rollback()
        del self._context.changes[self._changes :]
        del self._context.timers[self._timers :]
        del self._context.payments[self._payments :]
        self._context.recipient = self._recipient
