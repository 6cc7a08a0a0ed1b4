"""Doubt: when the agent asks "did you mean …?", and how."""

import re
from collections.abc import Mapping

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.naming import is_negated, says_no
from gpt2flow.agent.flows.prompt import CONFIRMATION, Arguments, Choice
from gpt2flow.agent.flows.schema import Action
from gpt2flow.agent.flows.slots import named_orders
from gpt2flow.agent.operations import Context
from gpt2flow.agent.shop import CustomerSession
from gpt2flow.agent.turns.execution.task import Task
from gpt2flow.agent.wording import Language

# Questions about the same action in a row.
_MAX_QUESTIONS = 2
_CORRECTION = re.compile(
    r"\b(?:sorry|sry|oops|whoops|i mean|i meant|meant|typo|wait|hang on|hold on|scratch that|rather"
    r"|correction|actually|fat fingers|my bad)\b|不对|错了|说错|打错|写错|应该是|记错|更正",
    re.IGNORECASE,
)


def is_doubtful(
    spec: Action, choice: Choice, confirm_below: float, *, is_contradicted: bool = False
) -> bool:
    """Return whether the customer has to confirm an action first.

    Args:
        spec: Action in the flow file.
        choice: Choice of the model.
        confirm_below: Confidence below which the agent asks, from 0 to 1; 0 never asks.
        is_contradicted: Whether the message says something against the action.
    """
    if spec.question is None:
        return False
    is_unsure = choice.confidence < min(confirm_below, spec.unsure_below)
    is_unsure = is_unsure or (is_contradicted and confirm_below > 0)
    return spec.confirm == "always" or (spec.confirm == "unsure" and is_unsure)


def is_denied(task: Task) -> bool:
    """Return whether a message denies the action that was asked about."""
    answers = task.answers == CONFIRMATION and says_no(task.message)
    return answers and task.choice.arguments.items() <= task.pending_arguments.items()


def is_contradicted(book: FlowBook, task: Task) -> bool:
    """Return whether a message contradicts the action that was read from it.

    It says no to the action, or names another order too and corrects itself.
    """
    orders, used = named_orders(task.message), set(map(str, task.choice.arguments.values()))
    corrects = len(orders) > 1 and len(used & set(orders)) == 1
    return is_negated(book.actions[task.choice.action], task.message) or (
        corrects and _CORRECTION.search(task.message) is not None
    )


def may_ask(session: CustomerSession, action: str, used: Arguments) -> bool:
    """Return whether the agent may ask about an action.

    About the same values it asks once, and about the same action twice in a row.
    """
    if session.doubted != action:
        return True
    asked = [e for e in session.past if e["action"] == action and e["result"] == "asked"]
    return len(asked) < _MAX_QUESTIONS and all(entry["arguments"] != used for entry in asked)


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
