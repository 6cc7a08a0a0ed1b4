"""Outbox under test: messages to send, and what became of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select, update
from structlog.typing import EventDict
from tests.support.shop import Clock
from tests.support.webhook_receiver import SECRET, WebhookReceiver

from gpt2flow.agent.config import utc_now
from gpt2flow.agent.delivery.backoff import Backoff
from gpt2flow.agent.delivery.dispatcher import Dispatcher
from gpt2flow.agent.delivery.local import ConsoleTransport
from gpt2flow.agent.delivery.message import OutgoingMessage
from gpt2flow.agent.delivery.observation import DeliveryObserver
from gpt2flow.agent.delivery.queue import OutboxQueue
from gpt2flow.agent.delivery.routing import Route, remaining_route
from gpt2flow.agent.delivery.settings import DeliverySettings
from gpt2flow.agent.shop import Audience, Case, CaseKind, CaseStatus, Database, OutboxMessage

# Time after which every lease has ended.
AFTER_LEASE = {"minutes": 2}


@dataclass
class Outbox:
    """Outbox of one database; its dispatchers share a clock.

    Attributes:
        events: Lines of the log, where a fixture captures them.
        printed: Keys of the messages that the console got.
        observer: Observer of the dispatchers.
    """

    database: Database
    clock: Clock
    events: list[EventDict] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)
    observer: DeliveryObserver = field(init=False)

    def __post_init__(self) -> None:
        self.observer = DeliveryObserver(clock=self.clock)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the fields of the log's lines of an event."""
        found = [dict(each) for each in self.events if each["event"] == event]
        return [{k: v for k, v in each.items() if k != "event"} for each in found]

    def add(self, *keys: str, **fields: Any) -> None:
        """Write messages to one customer."""
        with self.database.transaction() as db:
            for key in keys:
                db.add(OutboxMessage(**(message_fields(key) | fields)))
                db.flush()

    def add_case(self) -> int:
        """Write a case, and return its id."""
        with self.database.transaction() as db:
            case = Case(kind=CaseKind.FOLLOW_UP, status=CaseStatus.OPEN, created_at=self.clock.now)
            db.add(case)
            db.flush()
            return case.id

    def row(self, key: str) -> OutboxMessage:
        with self.database.transaction() as db:
            return db.scalars(select(OutboxMessage).where(OutboxMessage.key == key)).one()

    def change(self, key: str, **values: Any) -> None:
        with self.database.transaction() as db:
            db.execute(update(OutboxMessage).where(OutboxMessage.key == key).values(**values))

    def deliveries(self) -> dict[str, str]:
        """Return the state of each message."""
        with self.database.transaction() as db:
            query = select(OutboxMessage.key, OutboxMessage.delivery).order_by(OutboxMessage.id)
            return {key: delivery.value for key, delivery in db.execute(query)}

    def count(self) -> int:
        with self.database.transaction() as db:
            return db.scalar(select(func.count()).select_from(OutboxMessage)) or 0

    def queue(self, routes: Sequence[Route] | None = None, attempts: int = 12) -> OutboxQueue:
        """Return a queue; without routes, the console takes every message."""
        if routes is None:
            routes = self.console(lambda message: self.printed.append(message.key))
        return OutboxQueue(self.database, routes, self.clock, Backoff(attempts))

    def console(self, write: Callable[[OutgoingMessage], None]) -> list[Route]:
        return [remaining_route(ConsoleTransport(write))]

    def webhook(self, receiver: WebhookReceiver) -> list[Route]:
        """Return a route to a receiver; signatures have this machine's time."""
        return DeliverySettings(webhook=receiver.url, webhook_secret=SECRET).routes(utc_now)

    def dispatcher(
        self, routes: Sequence[Route] | None = None, attempts: int = 12, interval: float = 0.1
    ) -> Dispatcher:
        return Dispatcher(self.queue(routes, attempts), self.observer, interval=interval)

    async def send_due(
        self, routes: Sequence[Route] | None = None, attempts: int = 12
    ) -> Dispatcher:
        """Run a new dispatcher until nothing is due."""
        dispatcher = self.dispatcher(routes, attempts)
        await dispatcher.run(once=True)
        return dispatcher


def message_fields(key: str) -> dict[str, Any]:
    """Return the columns of a message to a customer."""
    return {
        "key": key,
        "session_id": "s",
        "contact": "ann@example.com",
        "audience": Audience.CUSTOMER,
        "flow": "order",
        "language": "en",
        "text": f"text of {key}",
        "created_at": Clock().now,
    }


def outgoing(key: str = "k-1", **fields: Any) -> OutgoingMessage:
    """Return a message that is in no database."""
    row = OutboxMessage(**({"id": 1, "attempts": 0} | message_fields(key) | fields))
    return OutgoingMessage.from_row(row)
