"""Base class and column types of the shop tables."""

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
    """Column type of an amount with two decimals.

    Amounts are stored as whole cents, because SQLite has no decimal type.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        """Convert an amount to cents; reject fractions of a cent."""
        del dialect
        if value is None:
            return None
        cents = value / _CENT
        if cents != cents.to_integral_value():
            raise ValueError(f"amount {value} is not a whole number of cents")
        return int(cents)

    def process_result_value(self, value: int | None, dialect: Dialect) -> Decimal | None:
        """Convert cents to an amount with two decimals."""
        del dialect
        return None if value is None else value * _CENT


class UtcDateTime(TypeDecorator[datetime]):
    """Column type of a point in time.

    Values are stored and returned in UTC, because SQLite stores no time zones.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert a datetime to UTC; reject one without a time zone."""
        del dialect
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"datetime {value} has no time zone; pass an aware one")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the stored datetime in UTC."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def text_enum(kind: type[_Kind]) -> Enum:
    """Return a column type that stores an enumeration as readable text."""
    return Enum(
        kind,
        native_enum=False,
        length=32,
        validate_strings=True,
        values_callable=lambda members: [member.value for member in members],
    )


class Base(DeclarativeBase):
    """Declarative base of the shop tables."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads this name
        Decimal: Money(),
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
    }
