"""Conversations by text, customer or order."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from gpt2flow.agent.cases.messages import codes_by_session, hide_codes
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.shop import Case, Customer, CustomerSession, ReceivedMessage, order_id

_ESCAPE = "\\"
_SHOWN_TEXT = 160
_CASE_NUMBER = re.compile(r"C-([0-9]{1,9})", re.IGNORECASE)
_ORDER_NUMBER = re.compile(r"SO-[0-9]{1,9}", re.IGNORECASE)


@dataclass(frozen=True)
class ConversationLine:
    """Conversation in a list.

    Attributes:
        id: Id of the session.
        customer: Name of the customer; None if nobody is logged in.
        contact: Contact of the customer.
        attended_by: Person who answers in place of the agent.
        latest: Latest message of the customer; empty if it was erased.
        latest_at: Time of that message.
        cases: Numbers of its cases.
    """

    id: str
    customer: str | None
    contact: str | None
    attended_by: str | None
    latest: str
    latest_at: datetime
    cases: list[str]


def search_conversations(
    db: Session, book: FlowBook, text: str, *, skipped: int, limit: int
) -> tuple[list[ConversationLine], bool]:
    """Return conversations, latest first, and whether there are more.

    Args:
        db: Session on the shop.
        book: Loaded flows.
        text: Words of a message, name or contact of a customer, or number of an order or case;
            empty finds all.
        skipped: Number of conversations to skip.
        limit: Largest number of conversations.
    """
    latest = (
        select(
            ReceivedMessage.session_id.label("session_id"),
            func.max(ReceivedMessage.created_at).label("latest_at"),
        )
        .group_by(ReceivedMessage.session_id)
        .subquery()
    )
    query = (
        select(CustomerSession, Customer, latest.c.latest_at)
        .join(latest, latest.c.session_id == CustomerSession.id)
        .outerjoin(Customer, Customer.id == CustomerSession.customer_id)
        .order_by(latest.c.latest_at.desc(), CustomerSession.id)
    )
    if text:
        query = query.where(_matches(text))
    rows = db.execute(query.limit(limit + 1).offset(skipped)).all()
    shown = rows[:limit]
    ids = [session.id for session, _, _ in shown]
    texts, cases, codes = _latest_texts(db, ids), _cases(db, ids), codes_by_session(db, ids, book)
    found = [
        ConversationLine(
            id=session.id,
            customer=customer.name if customer else None,
            contact=customer.contact if customer else None,
            attended_by=session.attended_by,
            latest=hide_codes(texts.get(session.id, ""), codes[session.id])[:_SHOWN_TEXT],
            latest_at=latest_at,
            cases=cases.get(session.id, []),
        )
        for session, customer, latest_at in shown
    ]
    return found, len(rows) > limit


def find_conversation(db: Session, session_id: str) -> CustomerSession | None:
    """Return a conversation; None if there is none."""
    return db.get(CustomerSession, session_id)


def _latest_texts(db: Session, ids: Collection[str]) -> dict[str, str]:
    """Return the latest message of each conversation."""
    query = (
        select(ReceivedMessage.session_id, ReceivedMessage.text)
        .where(ReceivedMessage.session_id.in_(ids))
        .order_by(ReceivedMessage.created_at)
    )
    return {session_id: text for session_id, text in db.execute(query)}  # noqa: C416 - a row is no pair


def _cases(db: Session, ids: Collection[str]) -> dict[str, list[str]]:
    """Return the numbers of the cases of each conversation."""
    query = select(Case.session_id, Case.id).where(Case.session_id.in_(ids)).order_by(Case.id)
    found: dict[str, list[str]] = {}
    for session_id, number in db.execute(query):
        found.setdefault(str(session_id), []).append(f"C-{number}")
    return found


def _matches(text: str) -> ColumnElement[bool]:
    """Return the condition that a conversation is about a text."""
    pattern = f"%{_escaped(text)}%"
    told = select(ReceivedMessage.session_id).where(
        ReceivedMessage.text.ilike(pattern, escape=_ESCAPE)
    )
    conditions = [
        CustomerSession.id == text,
        CustomerSession.id.in_(told),
        Customer.name.ilike(pattern, escape=_ESCAPE),
        Customer.contact.ilike(pattern, escape=_ESCAPE),
    ]
    about = select(Case.session_id)
    if match := _CASE_NUMBER.fullmatch(text):
        conditions.append(CustomerSession.id.in_(about.where(Case.id == int(match[1]))))
    if match := _ORDER_NUMBER.fullmatch(text):
        ordered = about.where(Case.order_id == order_id(match[0].upper()))
        conditions.append(CustomerSession.id.in_(ordered))
    return or_(*conditions)


def _escaped(text: str) -> str:
    """Return a text for `LIKE`, whose signs stand for themselves."""
    for sign in (_ESCAPE, "%", "_"):
        text = text.replace(sign, f"{_ESCAPE}{sign}")
    return text
