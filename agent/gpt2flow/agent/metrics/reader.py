"""Reader of the shop database that takes no write lock."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import URL, create_engine, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from gpt2flow.agent.shop import (
    INBOX,
    Case,
    CaseStatus,
    Delivery,
    OutboxMessage,
    Payment,
    PaymentStatus,
)
from gpt2flow.agent.shop.database import SchemaRevision, translate_errors

_State = TypeVar("_State", Delivery, PaymentStatus)
_CONNECT_SECONDS = 3
_GAUGED = (Delivery.PENDING, Delivery.DEAD)
# Payments that move no money until the provider or a person acts.
_UNSETTLED = (PaymentStatus.REQUESTED, PaymentStatus.STUCK)


@dataclass(frozen=True)
class InboxGauge:
    """Cases of one status in the inbox.

    Attributes:
        status: Status of the cases.
        cases: Number of cases.
        oldest: Time since which the oldest has been there; None if there is none.
    """

    status: CaseStatus
    cases: int
    oldest: datetime | None


class ShopReader:
    """Reader of the shop database, beside the processes that write it.

    Threads may share an instance.

    Args:
        url: URL of the database.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        options: dict[str, Any] = {}
        if url.get_backend_name() != "sqlite":
            # A database that is away must not hold up health checks.
            waiting = {"connect_timeout": _CONNECT_SECONDS}
            options = {"pool_pre_ping": True, "connect_args": waiting}
        self._engine = create_engine(url, **options)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a session for queries.

        Raises:
            DatabaseError: The database cannot be read.
        """
        with translate_errors(self._url), Session(self._engine) as db:
            yield db

    def check(self) -> None:
        """Read one row.

        Raises:
            DatabaseError: The database cannot be read.
        """
        with self.reading() as db:
            db.scalars(select(SchemaRevision.version_num)).one()

    def inbox(self) -> list[InboxGauge]:
        """Return a gauge of each status of the inbox.

        Raises:
            DatabaseError: The database cannot be read.
        """
        since = func.coalesce(Case.inbox_since, Case.created_at)
        query = (
            select(Case.status, func.count(), func.min(since))
            .where(Case.status.in_(INBOX))
            .group_by(Case.status)
        )
        with self.reading() as db:
            found = {status: (count, oldest) for status, count, oldest in db.execute(query)}
        return [InboxGauge(status, *found.get(status, (0, None))) for status in INBOX]

    def outbox(self) -> dict[Delivery, int]:
        """Return the number of undelivered messages, pending and dead ones.

        Raises:
            DatabaseError: The database cannot be read.
        """
        return self._count(OutboxMessage.delivery, _GAUGED)

    def oldest_pending(self) -> datetime | None:
        """Return the time of the oldest pending message, if there is one.

        Raises:
            DatabaseError: The database cannot be read.
        """
        query = select(func.min(OutboxMessage.created_at))
        with self.reading() as db:
            return db.scalar(query.where(OutboxMessage.delivery == Delivery.PENDING))

    def payments(self) -> dict[PaymentStatus, int]:
        """Return the number of payments that are not settled, by status.

        Raises:
            DatabaseError: The database cannot be read.
        """
        return self._count(Payment.status, _UNSETTLED)

    def _count(
        self, column: InstrumentedAttribute[_State], states: Sequence[_State]
    ) -> dict[_State, int]:
        """Return the number of rows in each of some states."""
        query = select(column, func.count()).where(column.in_(states)).group_by(column)
        with self.reading() as db:
            found = {state: count for state, count in db.execute(query)}  # noqa: C416
        return {state: found.get(state, 0) for state in states}
