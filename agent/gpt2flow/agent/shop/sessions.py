"""A conversation with one customer, and what it has open."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from gpt2flow.agent.shop.base import Base


class CustomerSession(Base):
    """A conversation. `customer_id` is set only after the contact was verified.

    `awaiting_*` is the question that is open: the slot that was asked for, of
    which action, and the arguments that the customer had given already. The
    focus is the product and the order that were last talked about.
    """

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[int | None] = mapped_column(ForeignKey("customers.id"))
    language: Mapped[str]
    awaiting_action: Mapped[str | None]
    awaiting_slot: Mapped[str | None]
    awaiting_arguments: Mapped[dict[str, Any] | None]
    focus_sku: Mapped[str | None] = mapped_column(ForeignKey("products.sku"))
    focus_order_id: Mapped[int | None] = mapped_column(ForeignKey("orders.id"))
    clarifications: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]


class Verification(Base):
    """A code that was sent and has not come back. Only a salted hash is kept.

    `name` is set while somebody registers who has no account yet.
    """

    __tablename__ = "verifications"

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), primary_key=True)
    contact: Mapped[str]
    name: Mapped[str | None]
    salt: Mapped[str] = mapped_column(info={"private": True})
    digest: Mapped[str] = mapped_column(info={"private": True})
    attempts: Mapped[int] = mapped_column(default=0)
    expires_at: Mapped[datetime]


class CartLine(Base):
    """So many of a product, not ordered yet."""

    __tablename__ = "cart_lines"

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), primary_key=True)
    sku: Mapped[str] = mapped_column(ForeignKey("products.sku"), primary_key=True)
    quantity: Mapped[int]


class Checkout(Base):
    """The order summary that the customer was shown and has to confirm.

    `lines` is what the summary said, as [sku, quantity, price in cents]: what
    is submitted must be what was confirmed.
    """

    __tablename__ = "checkouts"

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), primary_key=True)
    address: Mapped[str]
    lines: Mapped[list[Any]]
