"""Gauges of inbox, outbox and payments, read at a scrape."""

from collections.abc import Iterator
from datetime import datetime

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gpt2flow.agent.config import Clock
from gpt2flow.agent.errors import DatabaseError
from gpt2flow.agent.metrics.reader import ShopReader
from gpt2flow.agent.metrics.registry import PREFIX


class DatabaseGauges(Collector):
    """Collector of what all processes on the database share.

    Args:
        reader: Reader of the database.
        clock: Source of the current time, from which ages are computed.
    """

    def __init__(self, reader: ShopReader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges; those of a database that fails are missing."""
        try:
            metrics = [*self._inbox(), *self._outbox(), self._payments()]
        except DatabaseError:
            yield _gauge("database_up", "Whether the database could be read", 0)
            return
        yield _gauge("database_up", "Whether the database could be read", 1)
        yield from metrics

    def describe(self) -> list[Metric]:
        """Return nothing: a registry would read the database to learn the names."""
        return []

    def _inbox(self) -> Iterator[Metric]:
        cases = _gauge_by("status", "inbox_cases", "Cases that wait for a person")
        ages = _gauge_by(
            "status", "inbox_oldest_seconds", "Time that the oldest case has waited for a person"
        )
        for each in self._reader.inbox():
            cases.add_metric([each.status.value], each.cases)
            ages.add_metric([each.status.value], self._age(each.oldest))
        yield from (cases, ages)

    def _outbox(self) -> Iterator[Metric]:
        messages = _gauge_by("delivery", "outbox_messages", "Messages that were not delivered")
        for delivery, count in self._reader.outbox().items():
            messages.add_metric([delivery.value], count)
        yield messages
        yield _gauge(
            "outbox_oldest_seconds",
            "Time that the oldest pending message has waited",
            self._age(self._reader.oldest_pending()),
        )

    def _payments(self) -> Metric:
        payments = _gauge_by("status", "payments", "Payments that are not settled")
        for status, count in self._reader.payments().items():
            payments.add_metric([status.value], count)
        return payments

    def _age(self, since: datetime | None) -> float:
        # The clock of the process that wrote the row may be ahead.
        return 0.0 if since is None else max(0.0, (self._clock() - since).total_seconds())


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)


def _gauge_by(label: str, name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=[label])
