"""Courier and shipment tables."""

from datetime import date, datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column, relationship

from gpt2flow.agent.shop.tables.base import Base


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
