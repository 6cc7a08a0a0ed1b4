"""State that the model reads, loaded from the database."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from gpt2flow.agent.cases.life import CUSTOMER, attended_case, record
from gpt2flow.agent.cases.messages import hide_codes, sent_codes, tell_staff
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import CONFIRMATION, Arguments, PromptState, language
from gpt2flow.agent.shop import (
    CartLine,
    Checkout,
    CustomerSession,
    Order,
    OrderStatus,
    ReceivedMessage,
    Shipment,
    Verification,
    order_id,
)
from gpt2flow.agent.wording import Language

# E-mail addresses and order numbers use Latin letters in every language.
_NO_LANGUAGE = re.compile(r"\S+@\S+|\bso-?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class TurnState:
    """State of a session at the start of a turn.

    Attributes:
        prompt_state: State that the model reads.
        pending_arguments: Arguments given before the agent's open question.
        language: Language of the message.
        attended_by: Person who answers the customer in place of the agent.
    """

    prompt_state: PromptState
    pending_arguments: Arguments
    language: Language
    attended_by: str | None = None

    def pending_for(self, action: str) -> Arguments:
        """Return the pending arguments if the open question concerns `action`."""
        awaiting = self.prompt_state.awaiting
        return self.pending_arguments if awaiting and awaiting[0] == action else {}

    def answered_slot(self, action: str) -> str | None:
        """Return the slot that the open question concerns, if it concerns `action`."""
        awaiting = self.prompt_state.awaiting
        return awaiting[1] if awaiting and awaiting[0] == action else None


def read_turn_state(db: Session, session_id: str, message: str) -> TurnState:
    """Return the state at the start of a turn.

    A session without a row is a guest's.
    """
    session = db.get(CustomerSession, session_id)
    if session is None:
        return TurnState(PromptState(frozenset({"guest"})), {}, message_language(message, None))
    awaiting = None
    if session.awaiting_action and session.awaiting_slot:
        awaiting = (session.awaiting_action, session.awaiting_slot)
    past = tuple((entry["action"], entry["result"]) for entry in session.past)
    return TurnState(
        PromptState(session_facts(db, session), awaiting, past),
        dict(session.awaiting_arguments or {}),
        message_language(message, session.language),
        session.attended_by,
    )


def begin_turn(
    db: Session, book: FlowBook, key: str, session_id: str, *, message: str, now: datetime
) -> TurnState:
    """Keep a message, and return its session's state before the turn.

    A message to a person who attends the session is noted in the history of the case.

    Args:
        db: Session on the shop.
        book: Loaded flows.
        key: Idempotency key of the turn.
        session_id: Id of the conversation.
        message: Normalized message.
        now: Current time.
    """
    # Locked before it is read: a person may be about to take the conversation.
    session = lock_session(db, session_id, message_language(message, None), now)
    state = read_turn_state(db, session_id, message)
    if db.get(ReceivedMessage, key) is None:
        received = ReceivedMessage(
            key=key, session_id=session_id, language=state.language, text=message, created_at=now
        )
        db.add(received)
    attend(db, book, key, session, now)
    return state


def attend(
    db: Session, book: FlowBook, key: str, session: CustomerSession, now: datetime
) -> str | None:
    """Return the person who attends a session, and has the message now.

    The message is passed on once.

    Args:
        db: Session on the shop.
        book: Loaded flows.
        key: Idempotency key of the turn.
        session: Conversation, locked for update.
        now: Current time.
    """
    person, received = session.attended_by, db.get(ReceivedMessage, key)
    if person is None or received is None or received.attended_by is not None:
        return person
    received.attended_by = person
    case = attended_case(db, session.id, person)
    if case is not None:
        record(db, case, CUSTOMER, "written", now, text=received.text)
        text = hide_codes(received.text, sent_codes(db, session.id, book))
        tell_staff(db, case, book.cases, "written", now, text=text)
    return person


def lock_session(
    db: Session, session_id: str, language: Language, now: datetime
) -> CustomerSession:
    """Return the row of a session, locked for update.

    It is created if it is missing.
    """
    session = db.get(CustomerSession, session_id, with_for_update=True)
    if session is None:
        session = CustomerSession(id=session_id, language=language, created_at=now)
        db.add(session)
        db.flush()
    return session


def session_facts(db: Session, session: CustomerSession) -> frozenset[str]:
    """Return the facts of a session."""
    has_code = _has_row(db, Verification, session.id)
    identity = "member" if session.customer_id else "verifying" if has_code else "guest"
    facts = {identity}
    if _has_row(db, CartLine, session.id):
        facts.add("cart")
    if _has_row(db, Checkout, session.id):
        facts.add("confirming")
    if session.awaiting_slot == CONFIRMATION:
        facts.add("unsure")
    return frozenset(facts)


def _has_row(db: Session, table: type[Verification | CartLine | Checkout], session_id: str) -> bool:
    return bool(db.scalar(select(exists().where(table.session_id == session_id))))


def _order_submitted_facts(db: Session, subject: str) -> frozenset[str]:
    order = db.get_one(Order, order_id(subject))
    if order.status is OrderStatus.SUBMITTED:
        return frozenset({"submitted"})
    shipment = db.get(Shipment, order.id)
    unsent = shipment is not None and shipment.details_sent_at is None
    needs_details = order.status is OrderStatus.ASSIGNED and unsent
    return frozenset({"assigned"} if needs_details else ())


# Functions that compute the facts of an event from its subject, by event name.
EVENT_FACTS: dict[str, Callable[[Session, str], frozenset[str]]] = {
    "order_submitted": _order_submitted_facts,
}


def message_language(message: str, session_language: str | None) -> Language:
    """Return the language of a message.

    A message without words keeps the language of its session.
    """
    words = _NO_LANGUAGE.sub("", message)
    if session_language is not None and not any(c.isalpha() for c in words):
        return "zh" if session_language == "zh" else "en"
    return "zh" if language(message) == "zh" else "en"
