"""Cases for people: claims, follow-up calls and escalations."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from gpt2flow.agent.shop.base import Base, text_enum


class CaseKind(StrEnum):
    """Kind of case; the first three are claims on an order."""

    REFUND = "refund"
    RETURN = "return"
    EXCHANGE = "exchange"
    FOLLOW_UP = "follow_up"
    HAND_OVER = "hand_over"
    DELIVERY_REPORT = "delivery_report"
    NO_COURIER = "no_courier"


CLAIMS = (CaseKind.REFUND, CaseKind.RETURN, CaseKind.EXCHANGE)


class CaseStatus(StrEnum):
    """Status of a case.

    `open`, `awaiting_approval` and `due` cases are in a person's inbox. A `scheduled`
    case becomes `due` at its time.
    """

    OPEN = "open"
    APPROVED = "approved"
    AWAITING_APPROVAL = "awaiting_approval"
    REJECTED = "rejected"
    SCHEDULED = "scheduled"
    DUE = "due"
    CLOSED = "closed"


INBOX = (CaseStatus.OPEN, CaseStatus.AWAITING_APPROVAL, CaseStatus.DUE)


class Case(Base):
    """Claim, follow-up call, or other matter for a person to handle."""

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
    created_at: Mapped[datetime]

    @property
    def number(self) -> str:
        """Case number that the customer sees, such as `C-7`."""
        return f"C-{self.id}"
