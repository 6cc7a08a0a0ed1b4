"""Outbox of messages to customers."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Mapped, Session, mapped_column

from gpt2flow.agent.shop.base import Base


class OutboxMessage(Base):
    """Message to a customer, written in the transaction that it reports on.

    Attributes:
        key: Idempotency key of the action that sent the message.
        contact: Contact to send the message to; None sends it to the session. A
            verification code must reach the owner of the contact only.
        flow: Flow that the message belongs to.
    """

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    session_id: Mapped[str | None] = mapped_column(index=True)
    customer_id: Mapped[int | None]
    contact: Mapped[str | None] = mapped_column(index=True)
    flow: Mapped[str]
    language: Mapped[str]
    text: Mapped[str]
    created_at: Mapped[datetime]


def last_text(db: Session, session_id: str, contact: str | None) -> str | None:
    """Return the text of the last message to a recipient.

    Args:
        db: Session on the shop.
        session_id: Id of the conversation.
        contact: Contact of the recipient; None is the session itself.
    """
    query = select(OutboxMessage.text).where(
        OutboxMessage.session_id == session_id, OutboxMessage.contact == contact
    )
    return db.scalar(query.order_by(OutboxMessage.id.desc()).limit(1))
