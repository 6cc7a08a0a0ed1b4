"""Metrics of turns and requests, and gauges of the database."""

import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.support.http_endpoint import RunningEndpoint, Served, new_session
from tests.support.shop import Clock
from tests.support.waiting import SECONDS

from gpt2flow.agent.errors import ModelError
from gpt2flow.agent.http.process import serving_metrics
from gpt2flow.agent.http.reader import ShopReader
from gpt2flow.agent.http.telemetry.gauges import DatabaseGauges
from gpt2flow.agent.net.addresses import ListenError
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


def test_a_turn_is_counted_with_its_actions_and_model_calls(endpoint: RunningEndpoint) -> None:
    endpoint.post("a kettle and a lamp")
    endpoint.post("hello")
    assert endpoint.count("turns_total", result="handled") == 2
    assert endpoint.count("turn_seconds_count") == 2
    assert endpoint.count("actions_total", action="add_to_cart", result="ok") == 2
    assert endpoint.count("actions_total", action="greet", result="ok") == 1
    # Each answer of the scripted model takes a millisecond, says the model.
    assert endpoint.count("model_call_seconds_count") == 5
    assert endpoint.count("model_call_seconds_sum") == pytest.approx(0.005)


def test_a_repeated_message_is_counted_apart(endpoint: RunningEndpoint) -> None:
    session = new_session()
    for _ in range(3):
        endpoint.post("a kettle", session, id="m1")
    assert endpoint.count("turns_total", result="handled") == 1
    assert endpoint.count("turns_total", result="repeated") == 2
    assert endpoint.count("turn_seconds_count") == 1
    assert endpoint.count("actions_total", action="add_to_cart", result="ok") == 1


def test_failed_turns_are_counted_by_result(endpoint: RunningEndpoint, served: Served) -> None:
    session = new_session()
    endpoint.post("hello", session, id="m1")
    endpoint.post("a kettle", session, id="m1")
    served.model.error = ModelError("down")
    endpoint.post("hello")
    assert endpoint.count("turns_total", result="conflict") == 1
    assert endpoint.count("turns_total", result="model_error") == 1
    assert endpoint.count("turn_seconds_count") == 1


def test_requests_are_counted_by_route_and_status(endpoint: RunningEndpoint) -> None:
    endpoint.post("hello")
    endpoint.send("{")
    endpoint.get("/v1/sessions/a/messages")
    endpoint.get("/v1/sessions/b/messages?after=x")
    endpoint.get("/healthz")
    for path in ("/a", "/b"):
        endpoint.get(path)
    name = "http_requests_total"
    session = "/v1/sessions/{session}/messages"
    assert endpoint.count(name, route="/v1/messages", status="200") == 1
    assert endpoint.count(name, route="/v1/messages", status="400") == 1
    assert endpoint.count(name, route=session, status="200") == 1
    assert endpoint.count(name, route=session, status="422") == 1
    assert endpoint.count(name, route="/healthz", status="200") == 1
    assert endpoint.count(name, route="other", status="404") == 2


def test_the_queue_has_gauges(endpoint: RunningEndpoint) -> None:
    assert endpoint.count("turns_running") == 0
    assert endpoint.count("turns_waiting") == 0


both = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)


@both
def test_inbox_outbox_and_payments_are_read_from_the_database(database: Database) -> None:
    add_case(database, CaseStatus.OPEN, created=3600.0, in_inbox=120.0)
    add_case(database, CaseStatus.OPEN, created=60.0)
    add_case(database, CaseStatus.CLOSED, created=99_999.0)
    add_case(database, CaseStatus.DUE, created=-5.0)
    for number, delivery in enumerate(
        [Delivery.PENDING, Delivery.PENDING, Delivery.DEAD, Delivery.SENT, Delivery.ANSWERED]
    ):
        add_message(database, str(number), delivery)
    requested, stuck = PaymentStatus.REQUESTED, PaymentStatus.STUCK
    add_payments(database, requested, requested, stuck, PaymentStatus.PAID, PaymentStatus.VOID)
    reader, registry = ShopReader(database.url), CollectorRegistry()
    registry.register(DatabaseGauges(reader, Clock()))
    values = {
        (sample.name.removeprefix("gpt2flow_agent_"), *sample.labels.values()): sample.value
        for metric in registry.collect()
        for sample in metric.samples
    }
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
        ("payments", "requested"): 2,
        ("payments", "stuck"): 1,
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


def add_message(database: Database, key: str, delivery: Delivery) -> None:
    with database.transaction() as db:
        db.add(
            OutboxMessage(
                key=key,
                audience=Audience.STAFF,
                flow="cases",
                language="en",
                text="hello",
                delivery=delivery,
                created_at=NOW,
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


def test_metrics_have_an_address_of_their_own(endpoint: RunningEndpoint) -> None:
    endpoint.post("hello")
    assert endpoint.get("/metrics").status_code == 404
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with serving_metrics("127.0.0.1:0", endpoint.metrics.registry) as port:
        with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=SECONDS) as response:
            text = response.read().decode()
        with (
            pytest.raises(ListenError, match=r"cannot listen on 127.0.0.1:\d+ for metrics: Addr"),
            serving_metrics(f"127.0.0.1:{port}", endpoint.metrics.registry),
        ):
            pass
    assert 'gpt2flow_agent_turns_total{result="handled"} 1.0' in text


def test_a_turn_of_a_person_is_counted_apart(
    open_endpoint: Callable[..., Any], served: Served
) -> None:
    session = new_session()
    with open_endpoint() as endpoint:
        endpoint.post("hello", session)
        database = Database(database_url(served.database))
        with database.engine.begin() as connection:
            connection.exec_driver_sql(
                f"UPDATE sessions SET attended_by = 'ann' WHERE id = '{session}'"  # noqa: S608
            )
        database.close()
        assert endpoint.post("are you there?", session).json()["attended_by"] == "ann"
        assert endpoint.count("turns_total", result="attended") == 1
