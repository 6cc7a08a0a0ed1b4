"""Gauges of inbox, outbox and payments, read at a scrape."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gpt2flow.agent.config import Clock
from gpt2flow.agent.errors import DatabaseError
from gpt2flow.agent.http.reader import InboxGauge, ShopReader

_PREFIX: Final = "gpt2flow_agent"


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
            inbox, outbox = self._reader.inbox(), self._reader.outbox()
            unsettled = self._reader.payments()
        except DatabaseError:
            yield _gauge("database_up", "Whether the database could be read", 0)
            return
        yield _gauge("database_up", "Whether the database could be read", 1)
        cases = GaugeMetricFamily(
            f"{_PREFIX}_inbox_cases", "Cases that wait for a person", labels=["status"]
        )
        ages = GaugeMetricFamily(
            f"{_PREFIX}_inbox_oldest_seconds",
            "Time that the oldest case has waited for a person",
            labels=["status"],
        )
        now = self._clock()
        for each in inbox:
            cases.add_metric([each.status.value], each.cases)
            ages.add_metric([each.status.value], _age(each, now))
        messages = GaugeMetricFamily(
            f"{_PREFIX}_outbox_messages", "Messages that were not delivered", labels=["delivery"]
        )
        for delivery, count in outbox.items():
            messages.add_metric([delivery.value], count)
        payments = GaugeMetricFamily(
            f"{_PREFIX}_payments", "Payments that are not settled", labels=["status"]
        )
        for status, count in unsettled.items():
            payments.add_metric([status.value], count)
        yield from (cases, ages, messages, payments)

    def describe(self) -> list[Metric]:
        """Return nothing: a registry would read the database to learn the names."""
        return []


def _age(gauge: InboxGauge, now: datetime) -> float:
    # The clock of the process that wrote the case may be ahead.
    return 0.0 if gauge.oldest is None else max(0.0, (now - gauge.oldest).total_seconds())


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", text, value=value)
