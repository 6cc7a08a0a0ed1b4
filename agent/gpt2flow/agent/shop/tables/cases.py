"""Cases for people: claims, follow-up calls and hand-overs, with their history."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from gpt2flow.agent.shop.tables.base import Base, text_enum


class CaseKind(StrEnum):
    """Kind of case; the first three are claims on an order."""

    REFUND = "refund"
    RETURN = "return"
    EXCHANGE = "exchange"
    FOLLOW_UP = "follow_up"
    HAND_OVER = "hand_over"
    DELIVERY_REPORT = "delivery_report"
    NO_COURIER = "no_courier"
    # Work that could neither be finished nor undone.
    FAILURE = "failure"


CLAIMS = (CaseKind.REFUND, CaseKind.RETURN, CaseKind.EXCHANGE)


class CaseStatus(StrEnum):
    """Status of a case.

    `open`, `awaiting_approval` and `due` cases are in a person's inbox. A `scheduled`
    case becomes `due` at its time, and a case that nobody took up becomes `expired`.
    """

    OPEN = "open"
    APPROVED = "approved"
    AWAITING_APPROVAL = "awaiting_approval"
    REJECTED = "rejected"
    SCHEDULED = "scheduled"
    DUE = "due"
    EXPIRED = "expired"
    CLOSED = "closed"


INBOX = (CaseStatus.OPEN, CaseStatus.AWAITING_APPROVAL, CaseStatus.DUE)


class Case(Base):
    """Claim, follow-up call, or other matter for a person to handle.

    Attributes:
        amount: Amount that the customer claims; after an approval the one that was approved.
        assignee: Name of the person who has taken the case.
        urgency: 0 at first, 1 after a reminder, 2 once the case has been escalated.
        inbox_since: Time since which the case has been in the inbox.
        attention_at: Time of the next change without a person: it falls due, is reminded of,
            escalated, or expires. None if nothing is to happen.
        proposal: What the model proposed before a person took over, as an object with `action`,
            `arguments` and `confidence`.
    """

    __tablename__ = "cases"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[CaseKind] = mapped_column(text_enum(CaseKind))
    status: Mapped[CaseStatus] = mapped_column(text_enum(CaseStatus), index=True)
    session_id: Mapped[str | None]
    customer_id: Mapped[int | None] = mapped_column(ForeignKey("customers.id"))
    order_id: Mapped[int | None] = mapped_column(ForeignKey("orders.id"), index=True)
    reason: Mapped[str | None]
    amount: Mapped[Decimal | None]
    due_at: Mapped[datetime | None]
    note: Mapped[str | None]
    assignee: Mapped[str | None] = mapped_column(index=True)
    urgency: Mapped[int] = mapped_column(default=0, server_default="0")
    inbox_since: Mapped[datetime | None]
    attention_at: Mapped[datetime | None] = mapped_column(index=True)
    proposal: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]

    @property
    def number(self) -> str:
        """Case number that the customer sees, such as `C-7`."""
        return f"C-{self.id}"


class CaseEvent(Base):
    """Change of a case: who made it, when and why.

    Attributes:
        actor: Name of the person; `agent` for the agent itself, `customer` for the customer.
        change: Kind of change, such as `approved` or `reminded`.
        status: Status after the change.
        text: Reason or reply, in words.
        details: Values of the change, such as the amount and the digest of what was shown.
    """

    __tablename__ = "case_events"

    id: Mapped[int] = mapped_column(primary_key=True)
    case_id: Mapped[int] = mapped_column(ForeignKey("cases.id"), index=True)
    actor: Mapped[str]
    change: Mapped[str]
    status: Mapped[CaseStatus] = mapped_column(text_enum(CaseStatus))
    text: Mapped[str | None]
    details: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
