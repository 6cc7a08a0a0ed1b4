"""Tables of orders, their lines and shipments."""

from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column, relationship

from gpt2flow.agent.shop.tables.base import Base, text_enum
from gpt2flow.agent.shop.tables.products import Product

# Order numbers start with four digits.
_FIRST_NUMBER = 1000
_PREFIX = "SO-"


class OrderStatus(StrEnum):
    """Status of an order.

    An `assigned` order is reported as `on_its_way` from its planned collection on.
    """

    SUBMITTED = "submitted"
    ASSIGNED = "assigned"
    ON_ITS_WAY = "on_its_way"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"


class OrderLine(Base):
    """Quantity of a product in an order, with the price at submission."""

    __tablename__ = "order_lines"

    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    sku: Mapped[str] = mapped_column(ForeignKey("products.sku"), primary_key=True)
    quantity: Mapped[int]
    price: Mapped[Decimal]
    product: Mapped[Product] = relationship()


class Order(Base):
    """Submitted order, whose stock is reserved."""

    __tablename__ = "orders"
    # Customers refer to orders by number, so a deleted id must not be reused.
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 - SQLAlchemy reads this name

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"), index=True)
    status: Mapped[OrderStatus] = mapped_column(text_enum(OrderStatus))
    address: Mapped[str]
    total: Mapped[Decimal]
    created_at: Mapped[datetime]
    delivered_at: Mapped[datetime | None]
    lines: Mapped[list[OrderLine]] = relationship(order_by=OrderLine.sku)

    @property
    def number(self) -> str:
        """Order number that the customer sees, such as `SO-1042`."""
        return f"{_PREFIX}{_FIRST_NUMBER + self.id}"


def order_id(number: str) -> int:
    """Return the id of the order with a number such as `SO-1042`."""
    return int(number.removeprefix(_PREFIX)) - _FIRST_NUMBER


class Courier(Base):
    """Delivery company."""

    __tablename__ = "couriers"

    code: Mapped[str] = mapped_column(primary_key=True)
    name_en: Mapped[str]
    name_zh: Mapped[str]
    active: Mapped[bool] = mapped_column(default=True)

    def name(self, language: str) -> str:
        """Return the name of the courier in a language."""
        return self.name_zh if language == "zh" else self.name_en


class Shipment(Base):
    """Parcel of an order.

    Attributes:
        collected_at: Planned time of collection; until then the order can change.
        details_sent_at: Time at which the customer was sent the details, if ever.
    """

    __tablename__ = "shipments"

    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    courier_code: Mapped[str] = mapped_column(ForeignKey("couriers.code"), index=True)
    tracking: Mapped[str] = mapped_column(unique=True)
    collected_at: Mapped[datetime]
    expected_on: Mapped[date]
    details_sent_at: Mapped[datetime | None]
    courier: Mapped[Courier] = relationship()
