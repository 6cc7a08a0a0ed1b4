"""Erasure of personal data: what customers wrote goes, the books stay."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, or_, select, update
from sqlalchemy.orm import Session

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.shop import (
    INBOX,
    Base,
    CartLine,
    Case,
    CaseEvent,
    CasePicture,
    CaseStatus,
    Checkout,
    Customer,
    CustomerSession,
    Database,
    ExecutedAction,
    ModelCall,
    Order,
    OrderStatus,
    OutboxMessage,
    ReceivedMessage,
    ScreenWork,
    Verification,
)
from gpt2flow.agent.shop.tables.records import turn_prefix
from gpt2flow.agent.turns.records import compact, delete_turns

_ERASED = "(erased)"
# Orders that a customer still has to be reached about.
_UNDER_WAY = (OrderStatus.SUBMITTED, OrderStatus.ASSIGNED, OrderStatus.ON_ITS_WAY)
_WAITING = (*INBOX, CaseStatus.SCHEDULED)
# Changes of a case whose details have arguments, which are words of the customer.
_QUOTING = ("asked_again", "stopped", "closed")


@dataclass(frozen=True)
class Erasure:
    """Numbers of what was erased.

    Attributes:
        sessions: Conversations.
        messages: Messages of the customer and to the customer.
        model_calls: Records of model calls.
        turns: Durable records of turns.
    """

    sessions: int
    messages: int
    model_calls: int
    turns: int


def forget_contact(database: Database, contact: str, *, force: bool = False) -> Erasure:
    """Erase what is personal of the customer with a contact.

    Messages, model calls, pictures of screens and the durable records of turns are deleted; name
    and contact are blanked. Orders, payments, shipments and cases stay, without what was written
    about them.

    Args:
        database: Shop database.
        contact: E-mail address or phone number, as the shop stores it.
        force: Erase although orders or cases of the customer are open.

    Raises:
        InputError: Nothing is known of the contact, or something of the customer is open.
        DatabaseError: The database failed.
    """
    contact = contact.strip()
    with database.translate_errors(), database.transaction() as db:
        customer = db.scalar(select(Customer).where(Customer.contact == contact))
        sessions = _sessions_of(db, contact, customer)
        sent = db.scalar(select(func.count()).where(OutboxMessage.contact == contact)) or 0
        if customer is None and not sessions and not sent:
            raise InputError(f"contact is {contact!r}: no customer, conversation or message has it")
        if customer is not None and not force:
            _check_nothing_open(db, customer)
        erasure = _erase_sessions(db, sessions)
        messages = erasure.messages + _erase_messages_to(db, contact, customer)
        if customer is not None:
            _blank_customer(db, customer)
        turns = delete_turns(database.url, sessions)
    compact(database.url)
    return replace(erasure, messages=messages, turns=turns)


def forget_before(database: Database, time: datetime) -> Erasure:
    """Erase the conversations in which nothing was written since a time.

    Customers keep their accounts. A conversation with an open case stays.

    Args:
        database: Shop database.
        time: Time before which the latest message was written.

    Raises:
        DatabaseError: The database failed.
    """
    latest = (
        select(ReceivedMessage.session_id)
        .group_by(ReceivedMessage.session_id)
        .having(func.max(ReceivedMessage.created_at) < time)
    )
    has_case = select(Case.session_id).where(
        Case.session_id.is_not(None), Case.status.in_(_WAITING)
    )
    with database.translate_errors(), database.transaction() as db:
        sessions = set(db.scalars(latest)) - set(db.scalars(has_case))
        erasure = _erase_sessions(db, sessions)
        turns = delete_turns(database.url, sessions)
    compact(database.url)
    return replace(erasure, turns=turns)


def _sessions_of(db: Session, contact: str, customer: Customer | None) -> set[str]:
    """Return the conversations of a customer.

    They are logged in, verifying, or have cases or messages.
    """
    is_verifying = Verification.contact == contact
    found = set(db.scalars(select(Verification.session_id).where(is_verifying)))
    if customer is None:
        return found
    is_theirs = CustomerSession.customer_id == customer.id
    found |= set(db.scalars(select(CustomerSession.id).where(is_theirs)))
    sent = select(OutboxMessage.session_id).where(OutboxMessage.customer_id == customer.id)
    cases = select(Case.session_id).where(Case.customer_id == customer.id)
    return found | {each for query in (sent, cases) for each in db.scalars(query) if each}


def _check_nothing_open(db: Session, customer: Customer) -> None:
    orders = db.scalars(
        select(Order).where(Order.customer_id == customer.id, Order.status.in_(_UNDER_WAY))
    )
    cases = db.scalars(
        select(Case).where(Case.customer_id == customer.id, Case.status.in_(_WAITING))
    )
    numbers = [*(order.number for order in orders), *(case.number for case in cases)]
    if numbers:
        raise InputError(
            f"contact {customer.contact!r} is still needed for {', '.join(numbers)};"
            " finish them first, or use --force"
        )


def _erase_sessions(db: Session, sessions: Collection[str]) -> Erasure:
    """Erase what was written in some conversations; their rows stay, without contents."""
    messages = calls = 0
    for session in sessions:
        prefix = turn_prefix(session)
        received = ReceivedMessage.session_id == session
        sent = OutboxMessage.session_id == session
        messages += _delete(db, ReceivedMessage, received) + _delete(db, OutboxMessage, sent)
        calls += _delete(db, ModelCall, ModelCall.key.startswith(prefix, autoescape=True))
        for table in (CartLine, Checkout, Verification, ScreenWork):
            _delete(db, table, table.session_id == session)
        db.execute(
            update(ExecutedAction)
            .where(ExecutedAction.session_id == session)
            .values(arguments={}, step={})
        )
        _blank_cases(db, select(Case.id).where(Case.session_id == session))
        db.execute(update(CustomerSession).where(CustomerSession.id == session).values(**_BLANK))
    return Erasure(len(sessions), messages, calls, 0)


_BLANK: dict[str, Any] = {
    "customer_id": None,
    "awaiting_action": None,
    "awaiting_slot": None,
    "awaiting_arguments": None,
    "awaiting_message": None,
    "past": [],
    "wanted": [],
    "doubted": None,
    "attended_by": None,
}


def _blank_cases(db: Session, cases: Select[Any]) -> None:
    """Take what was written, and pictures, out of some cases."""
    db.execute(update(Case).where(Case.id.in_(cases)).values(note=None, proposal=None))
    is_theirs = CaseEvent.case_id.in_(cases)
    db.execute(update(CaseEvent).where(is_theirs).values(text=None))
    quotes = CaseEvent.change.in_(_QUOTING)
    db.execute(update(CaseEvent).where(is_theirs, quotes).values(details=None))
    db.execute(delete(CasePicture).where(CasePicture.case_id.in_(cases)))


def _erase_messages_to(db: Session, contact: str, customer: Customer | None) -> int:
    is_theirs = OutboxMessage.contact == contact
    if customer is not None:
        is_theirs = or_(is_theirs, OutboxMessage.customer_id == customer.id)
    return _delete(db, OutboxMessage, is_theirs)


def _blank_customer(db: Session, customer: Customer) -> None:
    _blank_cases(db, select(Case.id).where(Case.customer_id == customer.id))
    customer.name = _ERASED
    # Contacts are unique.
    customer.contact = f"{_ERASED} {customer.id}"
    customer.address = None


def _delete(db: Session, table: type[Base], condition: ColumnElement[bool]) -> int:
    """Delete rows, and return how many there were."""
    count = db.scalar(select(func.count()).select_from(table).where(condition)) or 0
    if count:
        db.execute(delete(table).where(condition))
    return count
