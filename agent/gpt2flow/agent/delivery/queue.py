"""Outbox as a queue: claims on messages, and records of attempts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update

from gpt2flow.agent.config import Clock
from gpt2flow.agent.delivery.backoff import LONGEST_WAIT, Backoff
from gpt2flow.agent.delivery.message import DeliveryError, OutgoingMessage, Transport
from gpt2flow.agent.delivery.routing import Route, recipient, route_number
from gpt2flow.agent.shop import Database, Delivery, OutboxMessage

# Longest time that one attempt may take.
SEND_SECONDS = 20.0
# Time for which a claimed row belongs to one dispatcher. It exceeds an attempt by far, so that
# the clocks of several machines need not be exact.
LEASE = timedelta(seconds=60)


@dataclass(frozen=True)
class Claim:
    """Message that one dispatcher has to itself until a time.

    Attributes:
        transport: Transport that takes the message.
        until: End of the lease, which also identifies the claim.
    """

    message: OutgoingMessage
    transport: Transport
    until: datetime


class OutboxQueue:
    """Pending messages of the outbox, shared by any number of dispatchers.

    Args:
        database: Database of the shop.
        routes: Transports, and what each takes.
        clock: Source of the current time.
        backoff: Times of the attempts.
    """

    def __init__(
        self, database: Database, routes: Sequence[Route], clock: Clock, backoff: Backoff
    ) -> None:
        self.backoff = backoff
        self._database = database
        self._routes = routes
        self._clock = clock
        self._route = route_number(routes)

    def claim(self, limit: int) -> list[Claim]:
        """Claim messages that are due, the oldest of each recipient alone.

        An earlier message that is pending, claimed or waiting for its next attempt, holds back
        those behind it. A message that no transport takes is passed over.

        Args:
            limit: Most messages to claim.

        Raises:
            DatabaseError: The database failed.
        """
        now = self._clock()
        until = now + LEASE
        heads = select(func.min(OutboxMessage.id)).where(_PENDING).group_by(*recipient())
        query = (
            select(OutboxMessage, self._route)
            .where(OutboxMessage.id.in_(heads), self._route.is_not(None))
            # Another dispatcher may have changed the row since `heads` were read: PostgreSQL
            # checks these conditions again once it has locked the row.
            .where(_PENDING, *_due(now))
            .order_by(OutboxMessage.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        with self._database.translate_errors(), self._database.transaction() as db:
            rows = db.execute(query).all()
            for row, _ in rows:
                row.claimed_until = until
            return [
                Claim(OutgoingMessage.from_row(row), self._routes[route].transport, until)
                for row, route in rows
            ]

    def is_lasting(self, claim: Claim) -> bool:
        """Return whether a claim lasts long enough for an attempt.

        It does not if the process was suspended meanwhile.
        """
        return self._clock() + timedelta(seconds=SEND_SECONDS) < claim.until

    def record_sent(self, claim: Claim) -> None:
        """Record that a message was sent, even if the lease has ended.

        Raises:
            DatabaseError: The database failed.
        """
        self._update(
            claim,
            delivery=Delivery.SENT,
            sent_at=self._clock(),
            attempts=OutboxMessage.attempts + 1,
            claimed_until=None,
            next_attempt_at=None,
            error=None,
        )

    def record_failure(self, claim: Claim, error: DeliveryError) -> timedelta | None:
        """Record that an attempt failed.

        Returns:
            The time until the next attempt; None if the message is dead now.

        Raises:
            DatabaseError: The database failed.
        """
        attempts = claim.message.attempts + 1
        wait = None if error.is_permanent else self.backoff.wait(attempts, error.retry_after)
        self._update(
            claim,
            OutboxMessage.claimed_until == claim.until,
            delivery=Delivery.DEAD if wait is None else Delivery.PENDING,
            attempts=attempts,
            claimed_until=None,
            next_attempt_at=None if wait is None else self._clock() + wait,
            error=str(error),
        )
        return wait

    def release(self, claim: Claim) -> None:
        """Give a message back without an attempt.

        Raises:
            DatabaseError: The database failed.
        """
        self._update(claim, OutboxMessage.claimed_until == claim.until, claimed_until=None)

    def revive(self) -> int:
        """Make dead messages pending again, with all their attempts; return their number.

        Messages that were never tried stay dead: they are older than deliveries.

        Raises:
            DatabaseError: The database failed.
        """
        dead = update(OutboxMessage).where(
            OutboxMessage.delivery == Delivery.DEAD, OutboxMessage.attempts > 0
        )
        revived = dead.values(delivery=Delivery.PENDING, attempts=0, next_attempt_at=None)
        with self._database.translate_errors(), self._database.transaction() as db:
            return len(db.scalars(revived.returning(OutboxMessage.id)).all())

    def dead_letters(self) -> list[OutboxMessage]:
        """Return the dead messages that were tried, oldest first.

        Raises:
            DatabaseError: The database failed.
        """
        query = select(OutboxMessage).where(
            OutboxMessage.delivery == Delivery.DEAD, OutboxMessage.attempts > 0
        )
        with self._database.translate_errors(), self._database.transaction() as db:
            return list(db.scalars(query.order_by(OutboxMessage.id)))

    def count_waiting(self) -> tuple[int, int]:
        """Return the number of pending messages, and of those without transport.

        Raises:
            DatabaseError: The database failed.
        """
        query = select(func.count(), func.count(self._route)).where(_PENDING)
        with self._database.translate_errors(), self._database.transaction() as db:
            pending, routed = db.execute(query).one()
        return pending, pending - routed

    def _update(self, claim: Claim, *conditions: ColumnElement[bool], **values: Any) -> None:
        query = update(OutboxMessage).where(
            OutboxMessage.id == claim.message.id, _PENDING, *conditions
        )
        with self._database.translate_errors(), self._database.transaction() as db:
            db.execute(query.values(**values))


_PENDING = OutboxMessage.delivery == Delivery.PENDING


def _due(now: datetime) -> list[ColumnElement[bool]]:
    """Return the conditions of a message that may be claimed now.

    A time that no dispatcher would write comes from a clock that was ahead, and does not count.
    """
    claimed, next_attempt = OutboxMessage.claimed_until, OutboxMessage.next_attempt_at
    return [
        or_(claimed.is_(None), claimed <= now, claimed > now + 2 * LEASE),
        or_(next_attempt.is_(None), next_attempt <= now, next_attempt > now + LONGEST_WAIT + LEASE),
    ]
