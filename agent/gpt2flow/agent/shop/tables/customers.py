"""Customer table."""

from datetime import datetime

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
