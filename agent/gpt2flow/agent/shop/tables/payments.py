"""Payments: charges for orders, and refunds."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import ForeignKey, Index, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from gpt2flow.agent.payments.port import PaymentKind
from gpt2flow.agent.shop.tables.base import Base, text_enum
from gpt2flow.agent.shop.tables.orders import Order


class PaymentStatus(StrEnum):
    """Status of a payment.

    A `requested` payment is paid or refused by the provider, or becomes `void` before that. One
    that the provider does not answer for too long is `stuck`, and a case for a person.
    """

    REQUESTED = "requested"
    PAID = "paid"
    REFUSED = "refused"
    VOID = "void"
    STUCK = "stuck"


# What counts as money that has moved, or will.
_MOVED = (PaymentStatus.REQUESTED, PaymentStatus.PAID, PaymentStatus.STUCK)


class Payment(Base):
    """Payment, written in the transaction of the action that it belongs to.

    Attributes:
        key: Idempotency key that the provider gets.
        case_id: Claim that a refund pays, or case that a stuck payment became.
        reference: Number that the provider gave the payment.
        reason: Why it was refused, or why its outcome is unknown.
        attempts: Number of attempts so far.
        next_attempt_at: Time before which there is no attempt.
    """

    __tablename__ = "payments"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[PaymentKind] = mapped_column(text_enum(PaymentKind))
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    case_id: Mapped[int | None] = mapped_column(ForeignKey("cases.id"), index=True)
    amount: Mapped[Decimal]
    status: Mapped[PaymentStatus] = mapped_column(text_enum(PaymentStatus))
    reference: Mapped[str | None]
    reason: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    settled_at: Mapped[datetime | None]
    created_at: Mapped[datetime]

    # The sweep looks for the few that are requested.
    __table_args__ = (Index("ix_payments_status", "status", "next_attempt_at"),)


def request_payment(
    db: Session,
    kind: PaymentKind,
    order: Order,
    amount: Decimal,
    now: datetime,
    *,
    not_before: datetime | None = None,
    case_id: int | None = None,
) -> Payment:
    """Write the request of a payment, for the agent to settle.

    Args:
        db: Session on the shop.
        kind: Charge or refund.
        order: Order that is paid, or paid back.
        amount: Amount above 0.
        now: Current time.
        not_before: Time before which it is not made; None is at once.
        case_id: Claim that the refund pays.
    """
    number = len(payments_of(db, order.id)) + 1
    payment = Payment(
        key=f"{order.number}/{number}/{kind.value}",
        kind=kind,
        order_id=order.id,
        case_id=case_id,
        amount=amount,
        status=PaymentStatus.REQUESTED,
        next_attempt_at=not_before or now,
        created_at=now,
    )
    db.add(payment)
    db.flush()
    return payment


def payments_of(db: Session, order_id: int) -> list[Payment]:
    """Return the payments of an order, the oldest first."""
    query = select(Payment).where(Payment.order_id == order_id).order_by(Payment.id)
    return list(db.scalars(query))


def refundable_amount(db: Session, order: Order) -> Decimal:
    """Return what an order's customer has paid and not got back.

    An order without payments is from before they were recorded: all of it was paid.
    """
    payments = payments_of(db, order.id)
    if not payments:
        return order.total
    moved = [payment for payment in payments if payment.status in _MOVED]
    paid = sum((p.amount for p in moved if p.kind is PaymentKind.CHARGE), Decimal(0))
    return paid - sum((p.amount for p in moved if p.kind is PaymentKind.REFUND), Decimal(0))


def void_refund(db: Session, case_id: int) -> bool:
    """Take back the refund of a claim.

    Returns:
        Whether nothing was, or may have been, paid back.
    """
    query = select(Payment).where(Payment.case_id == case_id).with_for_update()
    payments = list(db.scalars(query))
    if any(p.attempts or p.status is PaymentStatus.PAID for p in payments):
        return False
    for payment in payments:
        payment.status = PaymentStatus.VOID
    return True
