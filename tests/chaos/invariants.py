"""Invariants that hold after every run, whatever was killed in it."""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session
from tests.chaos.facts import stock
from tests.support.webhook_receiver import WebhookReceiver

from gpt2flow.agent.payments.port import PaymentKind
from gpt2flow.agent.shop import (
    CLAIMS,
    INBOX,
    Audience,
    Case,
    CaseEvent,
    CaseKind,
    CaseStatus,
    Database,
    Delivery,
    Order,
    OrderStatus,
    OutboxMessage,
    Payment,
    PaymentStatus,
    Shipment,
)

_EVENT = "order_submitted"
# Changes of which a case has one, and those that its customer is informed of.
_DECIDED, _CLOSED = ("approved", "rejected"), ("closed", "returned")
_TOLD = ("approved", "rejected", "replied")
# Messages that a case can lead to more than once.
_REPEATED = ("replied", "written", "reminded", "escalated", "taken")
_SETTLED = (PaymentStatus.PAID, PaymentStatus.REFUSED, PaymentStatus.VOID)


@dataclass(frozen=True)
class _Entry:
    """Paid payment in the ledger of the payment service."""

    key: str
    kind: str
    order: str
    cents: int


def violations(
    database: Database, ledger: Path, receiver: WebhookReceiver, initial_stock: Mapping[str, int]
) -> list[str]:
    """Return what is wrong in a shop whose work has settled.

    Args:
        database: Database of the shop.
        ledger: File of the payment service.
        receiver: Receiver of the messages.
        initial_stock: Stock of each product before the run.
    """
    with database.transaction() as db:
        return [
            *_money(db, _read_ledger(ledger)),
            *_goods(db, initial_stock, stock(db)),
            *_messages(db, receiver),
            *_cases(db),
            *_decisions(db),
        ]


def wrong_decisions(database: Database, decisions: Iterable[tuple[str, str]]) -> list[str]:
    """Return the decisions of people that are not in the history once.

    Args:
        database: Database of the shop.
        decisions: Number of the case and change of each.
    """
    with database.transaction() as db:
        history = Counter(
            (case.number, event.change)
            for event, case in db.execute(
                select(CaseEvent, Case).join(Case, Case.id == CaseEvent.case_id)
            )
        )
    return [
        f"case {case} was {change} {history[case, change]} times"
        for case, change in decisions
        if history[case, change] != 1
    ]


def unexpected_errors(folder: Path) -> list[str]:
    """Return the unexpected errors in the logs of a run."""
    return [
        f"{log.name}: {line}"
        for log in sorted(folder.glob("*.log"))
        for line in log.read_text(encoding="utf-8").splitlines()
        if line.startswith("gpt2flow: error: unexpected ")
    ]


def _read_ledger(path: Path) -> list[_Entry]:
    query = "SELECT key, kind, order_number, cents FROM payments WHERE outcome = 'paid'"
    with closing(sqlite3.connect(path, timeout=10)) as ledger:
        return [_Entry(*row) for row in ledger.execute(query)]


def _money(db: Session, ledger: list[_Entry]) -> Iterator[str]:
    """Find money that moved twice, too much, or unrecorded."""
    paid = {each.key: each for each in ledger}
    payments = list(db.scalars(select(Payment)))
    for key in paid.keys() - {each.key for each in payments}:
        yield f"payment {key} is in the ledger, and unknown in the shop"
    for payment in payments:
        entry = paid.get(payment.key)
        moved = entry is not None and entry.cents == int(payment.amount * 100)
        is_settled = payment.status in _SETTLED
        if not is_settled or moved is not (payment.status is PaymentStatus.PAID):
            yield f"payment {payment.key} is {payment.status}, in the ledger {entry}"
    for order in db.scalars(select(Order)):
        yield from _money_of(order, [each for each in ledger if each.order == order.number])


def _money_of(order: Order, ledger: list[_Entry]) -> Iterator[str]:
    charges = [each.cents for each in ledger if each.kind == PaymentKind.CHARGE]
    refunded = sum(each.cents for each in ledger if each.kind == PaymentKind.REFUND)
    charged, is_cancelled = sum(charges), order.status is OrderStatus.CANCELLED
    if len(charges) > 1 or charged not in {0, int(order.total * 100)}:
        yield f"order {order.number} of {order.total} was charged {charges} cents"
    if refunded > charged or (is_cancelled and refunded != charged):
        yield f"order {order.number} is {order.status}: {refunded} of {charged} cents refunded"
    if not is_cancelled and not charged:
        yield f"order {order.number} is {order.status}, and was not charged"


def _goods(db: Session, before: Mapping[str, int], after: Mapping[str, int]) -> Iterator[str]:
    """Find lost stock, and orders without a parcel."""
    sold = Counter[str]()
    parcels = {each.order_id: each for each in db.scalars(select(Shipment))}
    for order in db.scalars(select(Order)):
        if order.status is not OrderStatus.CANCELLED:
            sold.update({line.sku: line.quantity for line in order.lines})
        parcel = parcels.get(order.id)
        if order.status in {OrderStatus.ASSIGNED, OrderStatus.DELIVERED}:
            if parcel is None:
                yield f"order {order.number} is {order.status} without a parcel"
            elif parcel.details_sent_at is None:
                yield f"order {order.number}: the customer does not know of the parcel"
        elif order.status is OrderStatus.SUBMITTED:
            yield f"order {order.number} was not handled"
    for sku, count in before.items():
        if after[sku] != count - sold[sku]:
            yield f"stock of {sku} is {after[sku]}, was {count}, sold {sold[sku]}"


def _messages(db: Session, receiver: WebhookReceiver) -> Iterator[str]:
    """Find messages that were lost, changed, or written twice."""
    yield from (f"webhook: {failure}" for failure in receiver.failures)
    rows = {row.key: row for row in db.scalars(select(OutboxMessage))}
    texts: dict[str, str] = {}
    for received in receiver.received:
        key, text = received.body["data"]["key"], received.body["data"]["text"]
        if texts.setdefault(key, text) != text:
            yield f"message {key} was delivered with two texts: {texts[key]!r} and {text!r}"
    for key in texts.keys() - rows.keys():
        yield f"message {key} was delivered, and is not in the outbox"
    facts = Counter[str]()
    for key, row in rows.items():
        if row.delivery is Delivery.ANSWERED:
            if key in texts:
                yield f"message {key} was answered, and delivered too"
        elif row.delivery is not Delivery.SENT or texts.get(key) != row.text:
            yield f"message {key} is {row.delivery}, delivered as {texts.get(key)!r}"
        facts.update(_fact(key, row))
    yield from (f"{fact}: {count} messages" for fact, count in facts.items() if count > 1)


def _fact(key: str, row: OutboxMessage) -> Iterator[str]:
    """Return the fact that only one message may be about."""
    parts = key.split("/")
    if parts[0] == _EVENT and row.flow == "shipping":
        yield f"parcel of {parts[1]}"
    elif parts[0] == "case" and parts[-1] not in _REPEATED:
        yield f"case C-{parts[1]} {parts[-1]}"


def _cases(db: Session) -> Iterator[str]:
    """Find cases that nobody will hear of again."""
    for case in db.scalars(select(Case).where(Case.status.in_([*INBOX, CaseStatus.SCHEDULED]))):
        if case.attention_at is None and case.assignee is None:
            yield f"case {case.number} ({case.kind}) is {case.status} without a timer"


def _decisions(db: Session) -> Iterator[str]:
    """Find cases decided twice, and decisions without their message or refund."""
    for case in db.scalars(select(Case)):
        query = select(CaseEvent).where(CaseEvent.case_id == case.id)
        history = list(db.scalars(query.order_by(CaseEvent.id)))
        for ends in (_DECIDED, _CLOSED):
            changes = [each.change for each in history if each.change in ends]
            if len(changes) > 1:
                yield f"case {case.number} was {' and '.join(changes)}"
        is_closed = any(each.change in _CLOSED for each in history)
        if is_closed is not (case.status is CaseStatus.CLOSED):
            yield f"case {case.number} is {case.status}, closed in its history: {is_closed}"
        for each in history:
            sent = _messages_of(db, each)
            if each.change in _TOLD and len(sent) != 1:
                yield f"case {case.number} was {each.change}, messages to the customer: {sent}"
        yield from _refunds(db, case, history)


def _messages_of(db: Session, change: CaseEvent) -> list[str]:
    """Return the messages that a change of a case led to."""
    query = select(OutboxMessage.text).where(
        OutboxMessage.key.startswith(f"case/{change.case_id}/{change.id}/", autoescape=True),
        OutboxMessage.audience == Audience.CUSTOMER,
    )
    return list(db.scalars(query))


def _refunds(db: Session, case: Case, history: list[CaseEvent]) -> Iterator[str]:
    """Find claims that were not paid back as they were decided."""
    if case.kind not in CLAIMS:
        return
    query = select(Payment).where(Payment.case_id == case.id, Payment.status != PaymentStatus.VOID)
    paid = [payment.amount for payment in db.scalars(query)]
    is_approved = any(each.status is CaseStatus.APPROVED for each in history)
    is_paid_back = is_approved and case.kind is CaseKind.REFUND
    if paid != ([case.amount] if is_paid_back else []):
        yield f"{case.kind} {case.number} of {case.amount} is {case.status}, paid {paid}"


def count_repeated(receiver: WebhookReceiver) -> int:
    """Return the number of deliveries that repeated a key."""
    return len(receiver.keys) - len(set(receiver.keys))
