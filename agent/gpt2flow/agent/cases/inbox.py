"""Reading of cases: the inbox, and the view of one case."""

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from gpt2flow.agent.cases.messages import hide_codes, sent_codes, without_codes
from gpt2flow.agent.cases.pictures import StoppedScreen, list_pictures
from gpt2flow.agent.errors import InputError
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.shop import (
    CLAIMS,
    INBOX,
    Audience,
    Case,
    CaseEvent,
    CaseKind,
    CaseStatus,
    Customer,
    Order,
    OutboxMessage,
    ReceivedMessage,
)
from gpt2flow.agent.wording import format_money

# PostgreSQL has no larger ids.
_NUMBER = re.compile(r"(?:C-)?([1-9][0-9]{0,8})", re.IGNORECASE)
_DIGEST_DIGITS = 12
SHOWN = 50
"""Number of messages and changes of a case that are shown, unless others are asked for."""

_Row = TypeVar("_Row", CaseEvent, ReceivedMessage, OutboxMessage)


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class InboxLine(_View):
    """Case in a list.

    Attributes:
        urgency: 0, 1 after a reminder, 2 once it has been escalated.
        amount: Amount with two decimals; None if it is not about money.
    """

    case: str
    kind: CaseKind
    status: CaseStatus
    urgency: int
    customer: str | None
    order: str | None
    amount: str | None
    reason: str | None
    assignee: str | None
    since: datetime


class CaseChange(_View):
    """Change in the history of a case; as `CaseEvent`."""

    at: datetime
    actor: str
    change: str
    status: CaseStatus
    text: str | None
    details: dict[str, Any] | None


class Said(_View):
    """Message of a conversation, without verification codes.

    Attributes:
        by: `customer`, or `shop` for the agent and the staff.
        to: Contact that the message went to; None is the conversation itself.
    """

    at: datetime
    by: str
    to: str | None
    text: str


class OrderView(_View):
    """Order of a case."""

    order: str
    status: str
    total: str
    delivered_at: datetime | None
    lines: list[str]


class CaseView(InboxLine):
    """Case with all that a person has to see before a decision.

    Attributes:
        contact: Contact of the customer.
        bought: Order that the case is about.
        note: Message that opened the case.
        proposal: What the model proposed, with its confidence.
        policies: Policies of the claim's flow.
        earlier_changes: Number of changes before those of `history`.
        history: Latest changes, oldest first.
        earlier_messages: Number of messages before those of `conversation`.
        conversation: Latest messages of the conversation, oldest first.
        pictures: Pictures of the screens at which the agent stopped, newest first.
        digest: Digest of what a decision rests on.
    """

    contact: str | None
    bought: OrderView | None
    note: str | None
    proposal: dict[str, Any] | None
    due_at: datetime | None
    policies: dict[str, int | str]
    earlier_changes: int
    history: list[CaseChange]
    earlier_messages: int
    conversation: list[Said]
    pictures: list[StoppedScreen]
    digest: str


def parse_case_number(text: str) -> int:
    """Return the id of a case number, such as `C-7` or `7`.

    Raises:
        InputError: The text is no number of a case.
    """
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise InputError(f"case is {text!r:.80}, must be a number such as C-7")
    return int(match[1])


def list_cases(
    db: Session,
    *,
    statuses: Sequence[CaseStatus] = INBOX,
    assignee: str | None = None,
    kinds: Sequence[CaseKind] = tuple(CaseKind),
    limit: int | None = None,
    offset: int = 0,
) -> list[InboxLine]:
    """Return cases, ordered by urgency, age and amount.

    Args:
        db: Session on the shop.
        statuses: Statuses to include.
        assignee: Only the cases of this person.
        kinds: Kinds to include.
        limit: Largest number of cases; None is all.
        offset: Number of cases to skip.
    """
    since = func.coalesce(Case.inbox_since, Case.created_at)
    query = (
        select(Case, Customer, Order)
        .outerjoin(Customer, Customer.id == Case.customer_id)
        .outerjoin(Order, Order.id == Case.order_id)
        .where(*_conditions(statuses, assignee, kinds))
        .order_by(Case.urgency.desc(), since, func.coalesce(Case.amount, 0).desc(), Case.id)
        .limit(limit)
        .offset(offset)
    )
    rows = db.execute(query)
    return [InboxLine(**_line(case, customer, order)) for case, customer, order in rows]


def count_cases(
    db: Session,
    *,
    statuses: Sequence[CaseStatus] = INBOX,
    assignee: str | None = None,
    kinds: Sequence[CaseKind] = tuple(CaseKind),
) -> int:
    """Return the number of cases; arguments as `list_cases`."""
    query = select(func.count()).select_from(Case).where(*_conditions(statuses, assignee, kinds))
    return db.scalar(query) or 0


def _conditions(
    statuses: Sequence[CaseStatus], assignee: str | None, kinds: Sequence[CaseKind]
) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [Case.status.in_(statuses), Case.kind.in_(kinds)]
    if assignee is not None:
        conditions.append(Case.assignee == assignee)
    return conditions


def view_case(db: Session, case: Case, book: FlowBook, last: int | None = SHOWN) -> CaseView:
    """Return all that a person has to see of a case.

    Args:
        db: Session on the shop.
        case: Case to see.
        book: Loaded flows.
        last: Number of the latest messages, and of the latest changes; None is all.
    """
    customer = db.get(Customer, case.customer_id) if case.customer_id else None
    order = db.get(Order, case.order_id) if case.order_id else None
    policies = _claim_policies(case, book)
    bought = _order_view(order) if order is not None else None
    codes = sent_codes(db, case.session_id, book) if case.session_id is not None else []
    history, earlier_changes = _history(db, case, codes, last)
    conversation, earlier_messages = read_conversation(db, case.session_id, codes, last)
    return CaseView(
        **_line(case, customer, order),
        contact=customer.contact if customer else None,
        bought=bought,
        note=without_codes(case.note, codes),
        proposal=without_codes(case.proposal, codes),
        due_at=case.due_at,
        policies=policies,
        earlier_changes=earlier_changes,
        history=history,
        earlier_messages=earlier_messages,
        conversation=conversation,
        pictures=list_pictures(db, case, codes),
        digest=_digest(case, customer, bought, policies),
    )


def _line(case: Case, customer: Customer | None, order: Order | None) -> dict[str, Any]:
    return {
        "case": case.number,
        "kind": case.kind,
        "status": case.status,
        "urgency": case.urgency,
        "customer": customer.name if customer else None,
        "order": order.number if order else None,
        "amount": format_money(case.amount) if case.amount is not None else None,
        "reason": case.reason,
        "assignee": case.assignee,
        "since": case.inbox_since or case.created_at,
    }


def _order_view(order: Order) -> OrderView:
    return OrderView(
        order=order.number,
        status=order.status.value,
        total=format_money(order.total),
        delivered_at=order.delivered_at,
        lines=[
            f"{line.quantity} × {line.sku} ({format_money(line.price)})" for line in order.lines
        ],
    )


def _claim_policies(case: Case, book: FlowBook) -> dict[str, int | str]:
    """Return the policies of the flow that opens a claim."""
    for name, action in book.actions.items():
        if case.kind in CLAIMS and action.operation == f"request_{case.kind}":
            return dict(book.flow_of[name].policies)
    return {}


def _history(
    db: Session, case: Case, codes: Sequence[str], last: int | None
) -> tuple[list[CaseChange], int]:
    """Return the latest changes, and the number of the earlier ones."""
    query = select(CaseEvent).where(CaseEvent.case_id == case.id).order_by(CaseEvent.id)
    events, earlier = _latest(db, query, last)
    changes = [
        CaseChange(
            at=event.created_at,
            actor=event.actor,
            change=event.change,
            status=event.status,
            text=without_codes(event.text, codes),
            details=without_codes(event.details, codes),
        )
        for event in events
    ]
    return changes, earlier


def read_conversation(
    db: Session, session_id: str | None, codes: Sequence[str], last: int | None
) -> tuple[list[Said], int]:
    """Return the latest messages, and the number of the earlier ones.

    Args:
        db: Session on the shop.
        session_id: Id of the conversation; None has no messages.
        codes: Verification codes to hide.
        last: Most messages; None is all.
    """
    if session_id is None:
        return [], 0
    received, received_before = _latest(
        db,
        select(ReceivedMessage)
        .where(ReceivedMessage.session_id == session_id)
        .order_by(ReceivedMessage.created_at),
        last,
    )
    sent, sent_before = _latest(
        db,
        select(OutboxMessage)
        .where(
            OutboxMessage.session_id == session_id,
            OutboxMessage.audience == Audience.CUSTOMER,
        )
        .order_by(OutboxMessage.created_at, OutboxMessage.id),
        last,
    )
    said = [
        Said(at=each.created_at, by="customer", to=None, text=hide_codes(each.text, codes))
        for each in received
    ]
    said += [
        Said(at=each.created_at, by="shop", to=each.contact, text=hide_codes(each.text, codes))
        for each in sent
    ]
    # A message is older than the replies to it, even by a clock that stood still.
    said.sort(key=lambda each: each.at)
    more = 0 if last is None else max(len(said) - last, 0)
    return said[more:], received_before + sent_before + more


def _latest(db: Session, query: Select[_Row], last: int | None) -> tuple[list[_Row], int]:
    """Return the last rows of a query, and the number before them."""
    if last is None:
        return list(db.scalars(query)), 0
    total = db.scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0
    earlier = max(total - last, 0)
    return list(db.scalars(query.offset(earlier))), earlier


def _digest(
    case: Case, customer: Customer | None, bought: OrderView | None, policies: dict[str, int | str]
) -> str:
    """Return the digest of what a decision rests on."""
    shown = {
        "case": case.number,
        "kind": case.kind.value,
        "status": case.status.value,
        "amount": format_money(case.amount) if case.amount is not None else None,
        "reason": case.reason,
        "customer": [customer.id, customer.contact] if customer else None,
        "order": bought.model_dump(mode="json") if bought else None,
        "policies": policies,
    }
    text = json.dumps(shown, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_DIGITS]
