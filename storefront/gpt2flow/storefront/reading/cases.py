"""Couriers, calls and claims of the shop."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gpt2flow.agent.shop import (
    CLAIMS,
    Case,
    CaseKind,
    CaseStatus,
    Courier,
    Customer,
    Order,
    OrderStatus,
    Shipment,
)
from gpt2flow.agent.wording import Language


@dataclass(frozen=True)
class CourierLine:
    """Courier in a list.

    Attributes:
        code: Code of the courier.
        name: Name in the language of the page.
        parcels: Parcels that it has and that have not arrived.
        is_active: Whether it takes parcels.
    """

    code: str
    name: str
    parcels: int
    is_active: bool


@dataclass(frozen=True)
class CaseLine:
    """Claim or call in a list.

    Attributes:
        number: Number of the case.
        kind: Kind of case.
        status: Status of the case.
        customer: Name of the customer; empty if unknown.
        order: Number of the order; empty if it is about none.
        reason: Reason that the customer gave; empty without one.
        amount: Amount that is claimed; None if it is not about money.
        due_at: Time of a call; None for others.
    """

    number: str
    kind: CaseKind
    status: CaseStatus
    customer: str
    order: str
    reason: str
    amount: Decimal | None
    due_at: datetime | None


def list_couriers(db: Session, language: Language) -> list[CourierLine]:
    """Return all couriers, with their parcels under way."""
    parcels = (
        select(func.count())
        .select_from(Shipment)
        .join(Order, Order.id == Shipment.order_id)
        .where(Shipment.courier_code == Courier.code, Order.status == OrderStatus.ASSIGNED)
        .scalar_subquery()
    )
    rows = db.execute(select(Courier, parcels).order_by(Courier.code))
    return [CourierLine(c.code, c.name(language), n, c.active) for c, n in rows]


def list_claims(db: Session, skipped: int, limit: int) -> list[CaseLine]:
    """Return the claims of the shop, newest first."""
    query = select(Case).where(Case.kind.in_(CLAIMS)).order_by(Case.id.desc())
    return [_line(db, each) for each in db.scalars(query.offset(skipped).limit(limit))]


def list_calls(db: Session, skipped: int, limit: int) -> list[CaseLine]:
    """Return the calls of the shop, newest first."""
    query = select(Case).where(Case.kind == CaseKind.FOLLOW_UP).order_by(Case.id.desc())
    return [_line(db, each) for each in db.scalars(query.offset(skipped).limit(limit))]


def list_own_calls(db: Session, customer_id: int) -> list[CaseLine]:
    """Return the calls that a customer waits for, the next one first."""
    query = select(Case).where(
        Case.kind == CaseKind.FOLLOW_UP,
        Case.customer_id == customer_id,
        Case.status.in_((CaseStatus.SCHEDULED, CaseStatus.DUE)),
    )
    return [_line(db, each) for each in db.scalars(query.order_by(Case.due_at, Case.id))]


def _line(db: Session, case: Case) -> CaseLine:
    customer = db.get(Customer, case.customer_id) if case.customer_id else None
    order = db.get(Order, case.order_id) if case.order_id else None
    return CaseLine(
        number=case.number,
        kind=case.kind,
        status=case.status,
        customer=customer.name if customer else "",
        order=order.number if order else "",
        reason=case.reason or "",
        amount=case.amount,
        due_at=case.due_at,
    )
