"""Reading of the shop database without its write lock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict
from sqlalchemy import URL, create_engine, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from gpt2flow.agent.shop import (
    INBOX,
    Audience,
    Case,
    CaseStatus,
    Delivery,
    OutboxMessage,
    Payment,
    PaymentStatus,
)
from gpt2flow.agent.shop.database import SchemaRevision, translate_errors

_State = TypeVar("_State", Delivery, PaymentStatus)
# Messages of an answer.
PAGE = 100
# On PostgreSQL, ids are not committed in their order: a message may become visible after one with a
# larger id. Only messages that are older than any transaction are therefore passed for good.
_SETTLED = timedelta(seconds=10)
_CONNECT_SECONDS = 3
_GAUGED = (Delivery.PENDING, Delivery.DEAD)
# Payments that move no money until the provider or a person acts.
_UNSETTLED = (PaymentStatus.REQUESTED, PaymentStatus.STUCK)


class SessionMessage(BaseModel):
    """Message to a conversation.

    Attributes:
        id: Number of the message; larger ones are newer.
        case: Number of the case that the message is about.
        in_report: Whether the report of a turn has the message too.
    """

    model_config = ConfigDict(frozen=True)

    id: int
    language: str
    text: str
    case: str | None
    in_report: bool
    created_at: datetime


class SessionMessages(BaseModel):
    """Messages to a conversation, oldest first.

    Attributes:
        after: Value of `after` for the next request. Messages of the last seconds come again then.
    """

    model_config = ConfigDict(frozen=True)

    messages: Sequence[SessionMessage]
    after: int


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
    """Reader of the shop database, beside the agent that writes it.

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

    def check(self) -> None:
        """Read one row.

        Raises:
            DatabaseError: The database cannot be read.
        """
        with translate_errors(self._url), Session(self._engine) as db:
            db.scalars(select(SchemaRevision.version_num)).one()

    def session_messages(self, session: str, after: int, now: datetime) -> SessionMessages:
        """Return messages to the customer that the conversation itself delivers.

        Args:
            session: Id of the conversation.
            after: Id of the last message that is not wanted.
            now: Current time.

        Raises:
            DatabaseError: The database cannot be read.
        """
        query = (
            select(OutboxMessage)
            .where(
                OutboxMessage.session_id == session,
                OutboxMessage.contact.is_(None),
                OutboxMessage.audience == Audience.CUSTOMER,
                OutboxMessage.id > after,
            )
            .order_by(OutboxMessage.id)
            .limit(PAGE)
        )
        with translate_errors(self._url), Session(self._engine) as db:
            rows = list(db.scalars(query))
        # A full page ends before the newest messages, so its last one need not come again.
        settled = [r.id for r in rows if len(rows) == PAGE or r.created_at <= now - _SETTLED]
        return SessionMessages(
            messages=[_session_message(row) for row in rows], after=max(settled, default=after)
        )

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
        with translate_errors(self._url), Session(self._engine) as db:
            found = {status: (count, oldest) for status, count, oldest in db.execute(query)}
        return [InboxGauge(status, *found.get(status, (0, None))) for status in INBOX]

    def outbox(self) -> dict[Delivery, int]:
        """Return the number of undelivered messages, pending and dead ones.

        Raises:
            DatabaseError: The database cannot be read.
        """
        return self._count(OutboxMessage.delivery, _GAUGED)

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
        with translate_errors(self._url), Session(self._engine) as db:
            found = {state: count for state, count in db.execute(query)}  # noqa: C416
        return {state: found.get(state, 0) for state in states}


def _session_message(row: OutboxMessage) -> SessionMessage:
    return SessionMessage(
        id=row.id,
        language=row.language,
        text=row.text,
        case=None if row.case_id is None else f"C-{row.case_id}",
        in_report=row.delivery is Delivery.ANSWERED,
        created_at=row.created_at,
    )
