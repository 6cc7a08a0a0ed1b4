"""Tables of the agent's work on screens, and of their pictures."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from gpt2flow.agent.shop.tables.base import Base


class ScreenWork(Base):
    """Action that is under way on the shop's screens.

    The row is written before anything is pressed, and goes in the transaction that records the
    action. After a crash it says what the screen showed before, so that nothing is pressed twice.

    Attributes:
        key: Idempotency key of the action.
        task: Action with its arguments and what is expected of it, as an object.
        before: What the page that proves the action showed before it; None if not read yet.
        pressed_at: Time of the press that carries the action out; None before it.
        outcome: Name of the outcome that the screen showed; None while it is not known.
        fields: Fields of the outcome.
    """

    __tablename__ = "screen_work"

    key: Mapped[str] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"), index=True)
    task: Mapped[dict[str, Any]]
    before: Mapped[str | None]
    pressed_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    fields: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]


class CasePicture(Base):
    """Picture of a screen at which the agent stopped.

    Attributes:
        content: PNG; what is secret on the page is covered.
    """

    __tablename__ = "case_pictures"

    id: Mapped[int] = mapped_column(primary_key=True)
    case_id: Mapped[int] = mapped_column(ForeignKey("cases.id"), index=True)
    content: Mapped[bytes]
    created_at: Mapped[datetime]
