"""Timeline of a conversation: messages, model calls, actions and stops."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from gpt2flow.agent.cases.messages import hide_codes, sent_codes, without_codes
from gpt2flow.agent.cases.pictures import STOPPED, picture_of
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.shop import (
    Audience,
    Case,
    CaseEvent,
    ExecutedAction,
    ModelCall,
    OutboxMessage,
    ReceivedMessage,
)
from gpt2flow.agent.shop.tables.records import turn_prefix

EntryKind = Literal["customer", "shop", "model", "action", "stop"]
# Entries of one time, in the order in which they happen.
_KINDS: Final[tuple[EntryKind, ...]] = ("customer", "model", "action", "stop", "shop")


@dataclass(frozen=True)
class Entry:
    """Entry of a timeline.

    Attributes:
        at: Time of the entry.
        kind: Message of the customer or the shop, call of the model, executed action, or stop at
            a screen.
        text: Text of a message, answer of a call, name of an action, or reason of a stop.
        to: Contact that a message went to; None is the conversation.
        delivery: State of a message's delivery.
        details: Further values, by name.
        changes: Rows that an action wrote.
    """

    at: datetime
    kind: EntryKind
    text: str
    to: str | None = None
    delivery: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    changes: Sequence[dict[str, Any]] = ()


def timeline(db: Session, session_id: str | None, book: FlowBook, last: int | None) -> list[Entry]:
    """Return what happened in a conversation, oldest first, without verification codes.

    Args:
        db: Session on the shop.
        session_id: Id of the conversation; None is an empty timeline.
        book: Loaded flows.
        last: Number of the latest entries; None is all.
    """
    if session_id is None:
        return []
    codes = sent_codes(db, session_id, book)
    entries = [
        *_received(db, session_id, codes, last),
        *_sent(db, session_id, codes, last),
        *_calls(db, session_id, codes, last),
        *_actions(db, session_id, codes, last),
        *_stops(db, session_id, codes, last),
    ]
    # The latest come first, and the order of those at one time is kept.
    entries.reverse()
    entries.sort(key=lambda each: (each.at, _KINDS.index(each.kind)))
    return entries if last is None else entries[-last:]


def _received(db: Session, session: str, codes: Sequence[str], last: int | None) -> list[Entry]:
    query = select(ReceivedMessage).where(ReceivedMessage.session_id == session)
    rows = db.scalars(query.order_by(ReceivedMessage.created_at.desc()).limit(last))
    return [
        Entry(at=row.created_at, kind="customer", text=hide_codes(row.text, codes)) for row in rows
    ]


def _sent(db: Session, session: str, codes: Sequence[str], last: int | None) -> list[Entry]:
    query = select(OutboxMessage).where(
        OutboxMessage.session_id == session, OutboxMessage.audience == Audience.CUSTOMER
    )
    rows = db.scalars(query.order_by(OutboxMessage.id.desc()).limit(last))
    return [
        Entry(
            at=row.created_at,
            kind="shop",
            text=hide_codes(row.text, codes),
            to=row.contact,
            delivery=row.delivery.value,
        )
        for row in rows
    ]


def _calls(db: Session, session: str, codes: Sequence[str], last: int | None) -> list[Entry]:
    query = select(ModelCall).where(_is_turn_of(db, session))
    rows = db.scalars(query.order_by(ModelCall.created_at.desc()).limit(last))
    return [
        Entry(
            at=row.created_at,
            kind="model",
            text=hide_codes(row.output, codes),
            details={
                "prompt": hide_codes(row.prompt, codes),
                "grammar": hide_codes(row.constraint, codes),
                "confidence": row.confidence,
                "milliseconds": round(row.milliseconds, 1),
                "prompt_tokens": row.prompt_tokens,
                "completion_tokens": row.completion_tokens,
                "fingerprint": row.fingerprint,
            },
        )
        for row in rows
    ]


def _actions(db: Session, session: str, codes: Sequence[str], last: int | None) -> list[Entry]:
    query = select(ExecutedAction).where(ExecutedAction.session_id == session)
    rows = db.scalars(query.order_by(ExecutedAction.created_at.desc()).limit(last))
    entries = []
    for row in rows:
        arguments = without_codes(row.arguments, codes)
        report = row.step.get("report", {})
        entries.append(
            Entry(
                at=row.created_at,
                kind="action",
                text=row.action,
                details={"arguments": arguments, "outcome": row.outcome, "result": row.result},
                changes=without_codes(report.get("changes", []), codes),
            )
        )
    return entries


def _stops(db: Session, session: str, codes: Sequence[str], last: int | None) -> list[Entry]:
    query = (
        select(CaseEvent, Case)
        .join(Case, Case.id == CaseEvent.case_id)
        .where(Case.session_id == session, CaseEvent.change == STOPPED)
    )
    rows = db.execute(query.order_by(CaseEvent.id.desc()).limit(last))
    return [
        Entry(
            at=event.created_at,
            kind="stop",
            text=hide_codes(event.text or "", codes),
            details={"case": case.number, "picture": picture_of(event)},
        )
        for event, case in rows
    ]


def _is_turn_of(db: Session, session: str) -> ColumnElement[bool]:
    """Return the condition that a model call belongs to a conversation's turns."""
    prefix = turn_prefix(session)
    if db.get_bind().dialect.name == "sqlite":
        # `LIKE` would take either case there, and not use the index of the key.
        return (ModelCall.key >= prefix) & (ModelCall.key < f"{prefix[:-1]}0")
    return ModelCall.key.startswith(prefix, autoescape=True)
