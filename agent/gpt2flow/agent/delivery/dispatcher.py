"""Dispatcher that sends the outbox."""

import asyncio
import math
from dataclasses import dataclass

import structlog

from gpt2flow.agent.delivery.message import DeliveryError
from gpt2flow.agent.delivery.observation import DeliveryObserver
from gpt2flow.agent.delivery.queue import LEASE, SEND_SECONDS, Claim, OutboxQueue
from gpt2flow.agent.errors import DatabaseError, InputError

# Messages that are being sent at a time, each to another recipient.
_CONCURRENCY = 8
MIN_INTERVAL = 0.1
MAX_INTERVAL = 3600.0


@dataclass
class DispatchSummary:
    """Number of attempts by how they ended.

    Attributes:
        sent: Messages that were sent.
        failed: Attempts that failed, and after which there is another one.
        dead: Messages that are dead after their last attempt or a permanent error.
    """

    sent: int = 0
    failed: int = 0
    dead: int = 0


def check_interval(seconds: float) -> None:
    """Validate the pause between looks at an idle queue.

    Raises:
        InputError: It is out of bounds.
    """
    if not (math.isfinite(seconds) and MIN_INTERVAL <= seconds <= MAX_INTERVAL):
        raise InputError(
            f"interval is {seconds} s, must be from {MIN_INTERVAL} to {MAX_INTERVAL:.0f}"
        )


class Dispatcher:
    """Sender of the outbox: it claims, sends and records messages.

    Args:
        queue: Messages to send.
        observer: Log, metrics and traces of the attempts; None has the log alone.
        interval: Seconds between looks at a queue in which nothing is due.

    Raises:
        InputError: The interval is invalid.
    """

    def __init__(
        self,
        queue: OutboxQueue,
        observer: DeliveryObserver | None = None,
        *,
        interval: float = 1.0,
    ) -> None:
        check_interval(interval)
        self.summary = DispatchSummary()
        self._queue = queue
        self._observer = observer or DeliveryObserver()
        self._interval = interval
        self._stopped = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._database_failed = False
        self._warned = False

    def stop(self) -> None:
        """Claim nothing more, and end `run` after what is being sent.

        A second call cuts that short; the messages are released, and sent again later.
        """
        if self._stopped.is_set():
            for task in self._running:
                task.cancel()
        self._stopped.set()

    async def run(self, *, once: bool = False) -> None:
        """Send messages until `stop` is called.

        Args:
            once: Whether to end as soon as nothing is due.

        Raises:
            DatabaseError: The database failed, with `once`. Otherwise it is tried again.
        """
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            while not self._stopped.is_set():
                # A message that is recorded during a claim frees the one behind it too late for it.
                was_idle = not self._running
                if not await self._start(once=once) and once and was_idle:
                    break
                if once and not self._running:
                    continue
                await asyncio.wait(
                    {stopped, *self._running},
                    timeout=self._interval,
                    return_when=asyncio.FIRST_COMPLETED,
                )
        finally:
            stopped.cancel()
            if self._running:
                await asyncio.wait(self._running)

    async def _start(self, *, once: bool) -> int:
        """Claim messages and start to send them; return their number."""
        free = _CONCURRENCY - len(self._running)
        if not free:
            return 0
        try:
            claims = await asyncio.to_thread(self._queue.claim, free)
            if not claims:
                await self._warn()
        except DatabaseError as error:
            if once:
                raise
            if not self._database_failed:
                structlog.get_logger().warning(
                    "database_failed", reason=str(error), retry_seconds=self._interval
                )
            self._database_failed = True
            return 0
        self._database_failed = False
        for claim in claims:
            task = asyncio.create_task(self._handle(claim))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return len(claims)

    async def _warn(self) -> None:
        """Report once if no transport takes a pending message."""
        if self._warned:
            return
        _, without_transport = await asyncio.to_thread(self._queue.count_waiting)
        if without_transport:
            self._warned = True
            structlog.get_logger().warning("no_transport", pending=without_transport)

    async def _handle(self, claim: Claim) -> None:
        """Send a message, and record how that ended."""
        try:
            if self._stopped.is_set() or not self._queue.is_lasting(claim):
                await asyncio.to_thread(self._queue.release, claim)
                return
            await self._attempt(claim)
        except DatabaseError as error:
            structlog.get_logger().warning(
                "record_failed",
                key=claim.message.key,
                reason=str(error),
                retry_seconds=LEASE.total_seconds(),
            )

    async def _attempt(self, claim: Claim) -> None:
        with self._observer.attempt(claim.message, claim.transport.name) as attempt:
            try:
                error = await _send(claim)
            except asyncio.CancelledError:
                structlog.get_logger().warning("delivery_cut_short", key=claim.message.key)
                await asyncio.to_thread(self._queue.release, claim)
                return
            if error is None:
                await asyncio.to_thread(self._queue.record_sent, claim)
                self.summary.sent += 1
                attempt.succeeded()
                return
            wait = await asyncio.to_thread(self._queue.record_failure, claim, error)
            if wait is None:
                self.summary.dead += 1
            else:
                self.summary.failed += 1
            attempt.failed(error, wait, limit=self._queue.backoff.attempts)


async def _send(claim: Claim) -> DeliveryError | None:
    """Send a message; return why that failed, if it did."""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await claim.transport.send(claim.message)
    except DeliveryError as error:
        return error
    except TimeoutError:
        return DeliveryError(f"not taken within {SEND_SECONDS:g} s")
    except Exception as error:  # noqa: BLE001 - one message must not end the others
        return DeliveryError(f"unexpected {type(error).__name__}: {error}")
    return None
