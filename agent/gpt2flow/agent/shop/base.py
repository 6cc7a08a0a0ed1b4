"""What all tables share: money in cents, instants in UTC, enumerations as text."""

from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import BigInteger, DateTime, Dialect, Enum
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import JSON, TypeDecorator

_CENT = Decimal("0.01")
_Kind = TypeVar("_Kind", bound=StrEnum)


class Money(TypeDecorator[Decimal]):
    """An amount with two decimals, stored as whole cents: SQLite has no decimals."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        """Refuse amounts that are no whole number of cents."""
        del dialect
        if value is None:
            return None
        cents = value / _CENT
        if cents != cents.to_integral_value():
            raise ValueError(f"{value} is no whole number of cents")
        return int(cents)

    def process_result_value(self, value: int | None, dialect: Dialect) -> Decimal | None:
        """Give the amount back with two decimals."""
        del dialect
        return None if value is None else value * _CENT


class UtcDateTime(TypeDecorator[datetime]):
    """An instant; SQLite forgets time zones, so UTC goes in and comes out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse an instant without a time zone."""
        del dialect
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the instant back in UTC."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def text_enum(kind: type[_Kind]) -> Enum:
    """A column of an enumeration's values, readable in plain SQL on any database."""
    return Enum(
        kind,
        native_enum=False,
        length=32,
        validate_strings=True,
        values_callable=lambda members: [member.value for member in members],
    )


class Base(DeclarativeBase):
    """The declarative base of the shop."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads this name
        Decimal: Money(),
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
    }
