"""Orders of a customer, and of the whole shop."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import case, exists, select
from sqlalchemy.orm import Session

from gpt2flow.agent.operations.lookup import status_at
from gpt2flow.agent.shop import (
    CLAIMS,
    Case,
    CaseKind,
    CaseStatus,
    Customer,
    Order,
    OrderStatus,
    Shipment,
)
from gpt2flow.agent.wording import Language, status_name
from gpt2flow.storefront.reading.catalogue import ware
from gpt2flow.storefront.reading.shopping import Line

# SQLite and PostgreSQL have no larger ids in this column.
_MAX_ID = 2**31 - 1


@dataclass(frozen=True)
class Parcel:
    """Parcel of an order.

    Attributes:
        courier: Name of the courier.
        tracking: Tracking number.
        expected_on: Day on which it should arrive.
        details_sent_at: Time at which the customer was sent the details, if ever.
    """

    courier: str
    tracking: str
    expected_on: date
    details_sent_at: datetime | None


@dataclass(frozen=True)
class OrderClaim:
    """Claim on an order.

    Attributes:
        number: Number of its case.
        kind: Kind of claim.
        status: Status of the case.
    """

    number: str
    kind: CaseKind
    status: CaseStatus


@dataclass(frozen=True)
class Purchase:
    """Order as a page shows it.

    Attributes:
        number: Number of the order.
        customer: Name of the customer.
        contact: Contact of the customer.
        lines: Products.
        total: Price of all.
        address: Address of delivery.
        status: Name of the status in the language of the page.
        is_unassigned: Whether it waits for a courier.
        ordered_at: Time of the order.
        delivered_at: Time of delivery; None before it.
        parcel: Parcel; None before a courier has it.
        claims: Claims on it, oldest first.
    """

    number: str
    customer: str
    contact: str
    lines: Sequence[Line]
    total: Decimal
    address: str
    status: str
    is_unassigned: bool
    ordered_at: datetime
    delivered_at: datetime | None
    parcel: Parcel | None
    claims: Sequence[OrderClaim]


def parse_order_number(text: str) -> int | None:
    """Return the id of an order number; None for another text."""
    prefix, _, digits = text.partition("-")
    if prefix != "SO" or not (digits.isascii() and digits.isdecimal() and len(digits) <= 9):
        return None
    return int(digits) - int(Order(id=0).number.partition("-")[2])


def list_purchases(
    db: Session, customer_id: int, language: Language, now: datetime
) -> list[Purchase]:
    """Return the orders of a customer, newest first."""
    query = select(Order).where(Order.customer_id == customer_id).order_by(Order.id.desc())
    return [_purchase(db, order, language, now) for order in db.scalars(query)]


def list_work(
    db: Session, language: Language, now: datetime, skipped: int, limit: int
) -> list[Purchase]:
    """Return the orders of the shop, those without a courier first.

    The newest are first among each.

    Args:
        db: Session on the shop.
        language: Language of the page.
        now: Current time.
        skipped: Number of orders to leave out at the start.
        limit: Most orders.
    """
    has_parcel = exists().where(Shipment.order_id == Order.id)
    waits = (Order.status == OrderStatus.SUBMITTED) & ~has_parcel
    rank = case((waits, 0), else_=1)
    query = select(Order).order_by(rank, Order.id.desc()).offset(skipped).limit(limit)
    return [_purchase(db, order, language, now) for order in db.scalars(query)]


def find_purchase(
    db: Session,
    number: str,
    language: Language,
    now: datetime,
    *,
    customer_id: int | None = None,
) -> Purchase | None:
    """Return an order by its number.

    Args:
        db: Session on the shop.
        number: Number of the order.
        language: Language of the page.
        now: Current time.
        customer_id: Customer whose order it has to be; None is any.
    """
    order_id = parse_order_number(number)
    if order_id is None or not 0 < order_id <= _MAX_ID:
        return None
    order = db.get(Order, order_id)
    if order is None or (customer_id is not None and order.customer_id != customer_id):
        return None
    return _purchase(db, order, language, now)


def _purchase(db: Session, order: Order, language: Language, now: datetime) -> Purchase:
    customer = db.get_one(Customer, order.customer_id)
    shipment = db.get(Shipment, order.id)
    claims = select(Case).where(Case.order_id == order.id, Case.kind.in_(CLAIMS)).order_by(Case.id)
    parcel = None
    if shipment is not None:
        parcel = Parcel(
            courier=shipment.courier.name(language),
            tracking=shipment.tracking,
            expected_on=shipment.expected_on,
            details_sent_at=shipment.details_sent_at,
        )
    return Purchase(
        number=order.number,
        customer=customer.name,
        contact=customer.contact,
        lines=[
            Line(ware(each.product, language), each.quantity, each.price) for each in order.lines
        ],
        total=order.total,
        address=order.address,
        status=status_name(status_at(db, order, now), language),
        is_unassigned=order.status is OrderStatus.SUBMITTED and shipment is None,
        ordered_at=order.created_at,
        delivered_at=order.delivered_at,
        parcel=parcel,
        claims=[OrderClaim(each.number, each.kind, each.status) for each in db.scalars(claims)],
    )
