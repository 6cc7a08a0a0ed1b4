"""Customers and their conversations, verifications, carts and checkouts."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from gpt2flow.agent.shop.tables.base import Base


class Customer(Base):
    """Person whose contact was verified."""

    __tablename__ = "customers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    contact: Mapped[str] = mapped_column(unique=True)
    language: Mapped[str]
    address: Mapped[str | None]
    created_at: Mapped[datetime]


class CustomerSession(Base):
    """Conversation with one customer.

    Attributes:
        customer_id: Logged-in customer; set only after the contact was verified.
        awaiting_action: Action of the open question.
        awaiting_slot: Slot that the open question asks for.
        awaiting_arguments: Arguments given before the open question.
        awaiting_message: Message that led to the open question.
        focus_sku: Product that was mentioned last.
        focus_order_id: Order that was mentioned last.
        clarifications: Number of clarifications in a row.
        past: Latest actions, as objects with `action`, `result` and `arguments`, oldest first.
        wanted: Wishes to resume once they are legal, as objects with `action`, `arguments` and
            `message`.
        doubted: Action about which the customer was asked "did you mean …?" last.
        attended_by: Person who answers the customer in place of the agent.
    """

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[int | None] = mapped_column(ForeignKey("customers.id"))
    language: Mapped[str]
    awaiting_action: Mapped[str | None]
    awaiting_slot: Mapped[str | None]
    awaiting_arguments: Mapped[dict[str, Any] | None]
    awaiting_message: Mapped[str | None]
    focus_sku: Mapped[str | None] = mapped_column(ForeignKey("products.sku"))
    focus_order_id: Mapped[int | None] = mapped_column(ForeignKey("orders.id"))
    clarifications: Mapped[int] = mapped_column(default=0)
    past: Mapped[list[Any]] = mapped_column(default=list)
    wanted: Mapped[list[Any]] = mapped_column(default=list)
    doubted: Mapped[str | None]
    attended_by: Mapped[str | None]
    created_at: Mapped[datetime]


class ReceivedMessage(Base):
    """Message of a customer, as the agent read it.

    Attributes:
        key: Idempotency key of the turn that handles the message.
        text: Normalized text.
        attended_by: Person whom the message was passed on to; None left it to the model.
    """

    __tablename__ = "received_messages"

    key: Mapped[str] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), index=True)
    language: Mapped[str]
    text: Mapped[str]
    attended_by: Mapped[str | None]
    created_at: Mapped[datetime]


class Verification(Base):
    """Pending verification of a contact.

    The code is stored as a salted hash.

    Attributes:
        name: Name for the new account; None for a login.
        attempts: Number of wrong codes so far.
        expires_at: End of the code's lifetime.
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
    """Quantity of a product in a cart."""

    __tablename__ = "cart_lines"

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), primary_key=True)
    sku: Mapped[str] = mapped_column(ForeignKey("products.sku"), primary_key=True)
    quantity: Mapped[int]


class Checkout(Base):
    """Order summary that the customer has to confirm.

    Attributes:
        address: Address of delivery.
        lines: Lines of the summary, as [sku, quantity, price]; the price is a decimal
            string. The submitted order must equal them.
    """

    __tablename__ = "checkouts"

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), primary_key=True)
    address: Mapped[str]
    lines: Mapped[list[Any]]
