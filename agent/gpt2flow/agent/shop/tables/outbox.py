"""Outbox of messages to customers."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, Index, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from gpt2flow.agent.shop.tables.base import Base, text_enum


class Delivery(StrEnum):
    """State of a message's delivery.

    A reply within a turn is `answered`: the report of the turn hands it over. The dispatcher sends
    the others: a `pending` message becomes `sent`, or `dead` after its last attempt.
    """

    ANSWERED = "answered"
    PENDING = "pending"
    SENT = "sent"
    DEAD = "dead"


class Audience(StrEnum):
    """Whom a message is for."""

    CUSTOMER = "customer"
    STAFF = "staff"


class OutboxMessage(Base):
    """Message to a customer or the staff.

    It is written in the transaction that it reports on.

    Attributes:
        key: Idempotency key of the action that sent the message. Receivers recognize a message
            that is delivered twice by it.
        contact: Contact to send the message to; None sends it to the session. A
            verification code must reach the owner of the contact only.
        flow: Flow that the message belongs to.
        case_id: Case that the message is about.
        attempts: Number of attempts at the delivery so far.
        next_attempt_at: Time before which there is no further attempt; None is at once.
        claimed_until: Time until which one dispatcher has the message to itself.
        error: Why the last attempt failed.
        trace: `traceparent` of the span that wrote the message; None without traces. Attempts
            continue its trace.
    """

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    session_id: Mapped[str | None] = mapped_column(index=True)
    customer_id: Mapped[int | None]
    contact: Mapped[str | None] = mapped_column(index=True)
    audience: Mapped[Audience] = mapped_column(
        text_enum(Audience), default=Audience.CUSTOMER, server_default=Audience.CUSTOMER.value
    )
    flow: Mapped[str]
    case_id: Mapped[int | None] = mapped_column(ForeignKey("cases.id"), index=True)
    language: Mapped[str]
    text: Mapped[str]
    delivery: Mapped[Delivery] = mapped_column(
        text_enum(Delivery), default=Delivery.PENDING, server_default=Delivery.PENDING.value
    )
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    next_attempt_at: Mapped[datetime | None]
    claimed_until: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    error: Mapped[str | None]
    trace: Mapped[str | None]
    created_at: Mapped[datetime]

    # Dispatchers look for pending messages, of which there are few among many.
    __table_args__ = (Index("ix_outbox_delivery", "delivery", "id"),)


def last_text(db: Session, session_id: str, contact: str | None) -> str | None:
    """Return the text of the last message to a customer.

    Args:
        db: Session on the shop.
        session_id: Id of the conversation.
        contact: Contact of the recipient; None is the session itself.
    """
    query = select(OutboxMessage.text).where(
        OutboxMessage.session_id == session_id,
        OutboxMessage.contact == contact,
        OutboxMessage.audience == Audience.CUSTOMER,
    )
    return db.scalar(query.order_by(OutboxMessage.id.desc()).limit(1))
