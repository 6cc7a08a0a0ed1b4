"""What is sent to customers."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from gpt2flow.agent.shop.base import Base


class OutboxMessage(Base):
    """A message to a customer, written in the transaction of what it tells.

    It answers in the session, or goes to `contact` where that is set: a
    verification code must reach the owner of the contact and nobody else.
    `flow` is the flow that it belongs to.
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
