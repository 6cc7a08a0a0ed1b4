"""Gauges of inbox, outbox and payments, on both databases."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from tests.support.shop import Clock

from gpt2flow.agent.metrics.gauges import DatabaseGauges
from gpt2flow.agent.metrics.reader import ShopReader
from gpt2flow.agent.payments.port import PaymentKind
from gpt2flow.agent.shop import (
    Audience,
    Case,
    CaseKind,
    CaseStatus,
    Customer,
    Database,
    Delivery,
    Order,
    OrderStatus,
    OutboxMessage,
    PaymentStatus,
    database_url,
)
from gpt2flow.agent.shop.tables.payments import request_payment

pytestmark = pytest.mark.process

NOW = Clock().now
both = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)


@both
def test_inbox_outbox_and_payments_are_read_from_the_database(database: Database) -> None:
    add_case(database, CaseStatus.OPEN, created=3600.0, in_inbox=120.0)
    add_case(database, CaseStatus.OPEN, created=60.0)
    add_case(database, CaseStatus.CLOSED, created=99_999.0)
    add_case(database, CaseStatus.DUE, created=-5.0)
    add_message(database, "old", Delivery.PENDING, seconds_ago=90.0)
    add_message(database, "new", Delivery.PENDING)
    for delivery in (Delivery.DEAD, Delivery.SENT, Delivery.ANSWERED):
        add_message(database, delivery.value, delivery, seconds_ago=9999.0)
    requested, stuck = PaymentStatus.REQUESTED, PaymentStatus.STUCK
    add_payments(database, requested, requested, stuck, PaymentStatus.PAID, PaymentStatus.VOID)
    reader, registry = ShopReader(database.url), CollectorRegistry()
    registry.register(DatabaseGauges(reader, Clock()))
    values = samples(registry)
    reader.close()
    assert values == {
        ("database_up",): 1,
        ("inbox_cases", "open"): 2,
        ("inbox_cases", "awaiting_approval"): 0,
        ("inbox_cases", "due"): 1,
        ("inbox_oldest_seconds", "open"): 120,
        ("inbox_oldest_seconds", "awaiting_approval"): 0,
        ("inbox_oldest_seconds", "due"): 0,
        ("outbox_messages", "pending"): 2,
        ("outbox_messages", "dead"): 1,
        ("outbox_oldest_seconds",): 90,
        ("payments", "requested"): 2,
        ("payments", "stuck"): 1,
    }


def test_a_message_of_a_clock_that_is_ahead_has_no_age(database: Database) -> None:
    reader, registry = ShopReader(database.url), CollectorRegistry()
    registry.register(DatabaseGauges(reader, Clock()))
    assert samples(registry)["outbox_oldest_seconds",] == 0
    add_message(database, "ahead", Delivery.PENDING, seconds_ago=-60.0)
    assert samples(registry)["outbox_oldest_seconds",] == 0
    reader.close()


def samples(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """Return the value of each series by name and labels."""
    return {
        (sample.name.removeprefix("gpt2flow_agent_"), *sample.labels.values()): sample.value
        for metric in registry.collect()
        for sample in metric.samples
    }


def add_case(
    database: Database, status: CaseStatus, *, created: float, in_inbox: float | None = None
) -> None:
    """Write a case with its ages in seconds."""
    since = None if in_inbox is None else NOW - timedelta(seconds=in_inbox)
    with database.transaction() as db:
        db.add(
            Case(
                kind=CaseKind.REFUND,
                status=status,
                amount=Decimal("1.00"),
                inbox_since=since,
                created_at=NOW - timedelta(seconds=created),
            )
        )


def add_message(database: Database, key: str, delivery: Delivery, seconds_ago: float = 0.0) -> None:
    with database.transaction() as db:
        db.add(
            OutboxMessage(
                key=key,
                audience=Audience.STAFF,
                flow="cases",
                language="en",
                text="hello",
                delivery=delivery,
                created_at=NOW - timedelta(seconds=seconds_ago),
            )
        )


def add_payments(database: Database, *statuses: PaymentStatus) -> None:
    """Write an order with payments of these statuses."""
    with database.transaction() as db:
        customer = Customer(name="Ann", contact="ann@example.com", language="en", created_at=NOW)
        db.add(customer)
        db.flush()
        order = Order(
            customer_id=customer.id,
            status=OrderStatus.SUBMITTED,
            address="5 Oak Rd",
            total=Decimal("1.00"),
            created_at=NOW,
        )
        db.add(order)
        db.flush()
        for status in statuses:
            payment = request_payment(db, PaymentKind.CHARGE, order, Decimal("1.00"), NOW)
            payment.status = status


def test_a_scrape_without_the_database_says_so(tmp_path: Path) -> None:
    reader = ShopReader(database_url(str(tmp_path / "nowhere" / "shop.sqlite")))
    registry = CollectorRegistry()
    registry.register(DatabaseGauges(reader, lambda: datetime.now(UTC)))
    [metric] = registry.collect()
    assert [(each.name, each.value) for each in metric.samples] == [
        ("gpt2flow_agent_database_up", 0)
    ]
