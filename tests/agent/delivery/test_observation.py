"""Attempts seen from outside: metrics, traces, and lines of the log."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import text
from structlog.testing import capture_logs
from tests.support.agent_process import SCRIPT
from tests.support.otlp_collector import OtlpCollector, attributes, otlp_collector
from tests.support.outbox import Outbox
from tests.support.scripted_model import ScriptedModel
from tests.support.shop import CODE, Clock
from tests.support.webhook_receiver import HttpAnswer, WebhookReceiver

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.delivery.observation import DeliveryObserver
from gpt2flow.agent.shop import Database, OutboxMessage, database_url
from gpt2flow.agent.telemetry.otlp import OtlpTracer

pytestmark = pytest.mark.process

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def collector() -> Iterator[OtlpCollector]:
    with otlp_collector() as collector:
        yield collector


@pytest.fixture
def written(path: Path, collector: OtlpCollector) -> Iterator[Outbox]:
    """Outbox with a message that a turn with a trace has written."""
    config = AgentConfig(database=str(path), otlp_endpoint=collector.endpoint)
    with Agent(config, model=ScriptedModel(SCRIPT), codes=lambda: CODE) as agent:
        agent.handle("s", "i'm Ann, ann@example.com", "m1")
    with closing(Database(database_url(str(path)))) as database, capture_logs() as events:
        yield Outbox(database, Clock(), events)


def count(outbox: Outbox, name: str, **labels: str) -> float:
    value = outbox.observer.registry.get_sample_value(f"gpt2flow_agent_{name}", labels)
    return value or 0.0


def trace_ids(spans: list[Span]) -> set[str]:
    return {span.trace_id.hex() for span in spans}


async def test_attempts_are_counted_by_transport_and_result(
    outbox: Outbox, receiver: WebhookReceiver
) -> None:
    outbox.add("a1", "a2")
    outbox.add("b1", contact="bob@example.com")
    outbox.add("c1", contact="cat@example.com")
    statuses = {"b1": 503, "c1": 404}
    receiver.answer = lambda request: HttpAnswer(statuses.get(request.key, 204))
    await outbox.send_due(outbox.webhook(receiver))
    outbox.add("d1")
    await outbox.send_due()
    found = {
        (transport, result): count(
            outbox, "delivery_attempts_total", transport=transport, result=result
        )
        for transport in ("webhook", "console")
        for result in ("sent", "failed", "dead")
    }
    assert found == {
        ("webhook", "sent"): 2,
        ("webhook", "failed"): 1,
        ("webhook", "dead"): 1,
        ("console", "sent"): 1,
        ("console", "failed"): 0,
        ("console", "dead"): 0,
    }


async def test_the_age_of_a_message_is_measured_when_it_is_sent(
    outbox: Outbox, receiver: WebhookReceiver
) -> None:
    outbox.add("a1")
    outbox.clock.forward(seconds=45)
    receiver.answer = lambda _: HttpAnswer(503)
    await outbox.send_due(outbox.webhook(receiver))
    assert count(outbox, "delivery_seconds_count") == 0
    outbox.clock.forward(minutes=1)
    receiver.answer = lambda _: HttpAnswer()
    await outbox.send_due(outbox.webhook(receiver))
    assert count(outbox, "delivery_seconds_count") == 1
    assert count(outbox, "delivery_seconds_sum") == 105
    assert count(outbox, "delivery_seconds_bucket", le="60.0") == 0
    assert count(outbox, "delivery_seconds_bucket", le="300.0") == 1


async def test_a_message_that_was_sent_but_not_recorded_is_not_counted(outbox: Outbox) -> None:
    def rename(old: str, new: str) -> None:
        with outbox.database.engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    outbox.add("a1")
    dispatcher, queue = outbox.dispatcher(), outbox.queue()
    (claim,) = queue.claim(1)
    rename("outbox", "away")
    try:
        await dispatcher._handle(claim)
    finally:
        rename("away", "outbox")
    assert outbox.printed == ["a1"]
    (line,) = outbox.logged("record_failed")
    assert (line["key"], line["retry_seconds"]) == ("a1", 60.0)
    assert outbox.logged("delivery") == []
    assert count(outbox, "delivery_attempts_total", transport="console", result="sent") == 0


async def test_an_attempt_is_in_the_trace_of_the_turn_that_wrote_the_message(
    written: Outbox, collector: OtlpCollector, receiver: WebhookReceiver
) -> None:
    receiver.answer = lambda _: HttpAnswer(503)
    with closing(OtlpTracer(collector.endpoint, "gpt2flow-dispatcher")) as tracer:
        written.observer = DeliveryObserver(tracer, written.clock)
        await written.send_due(written.webhook(receiver))
        receiver.answer = lambda _: HttpAnswer()
        written.clock.forward(minutes=1)
        await written.send_due(written.webhook(receiver))
    [turn], [action] = collector.named("turn"), collector.named("action")
    failed, sent = collector.named("delivery")
    assert trace_ids([failed, sent]) == trace_ids([turn])
    assert {span.parent_span_id for span in (failed, sent)} == {action.span_id}
    assert sent.kind == Span.SPAN_KIND_CLIENT
    key = attributes(action)["gpt2flow.key"]
    assert [attributes(span) for span in (failed, sent)] == [
        {
            "gpt2flow.key": key,
            "gpt2flow.transport": "webhook",
            "gpt2flow.attempt": number,
            "gpt2flow.result": result,
        }
        for number, result in ((1, "failed"), (2, "sent"))
    ]
    assert collector.services == {"gpt2flow-agent", "gpt2flow-dispatcher"}
    # The receiver's spans are children of the attempt.
    parents = [request.headers["traceparent"].split("-") for request in receiver.received]
    assert [(each[1], each[2]) for each in parents] == [
        (span.trace_id.hex(), span.span_id.hex()) for span in (failed, sent)
    ]
    assert {line["trace_id"] for line in written.logged("delivery")} == trace_ids([turn])


async def test_neither_log_nor_traces_have_the_text_of_a_message(
    written: Outbox, collector: OtlpCollector, receiver: WebhookReceiver
) -> None:
    with closing(OtlpTracer(collector.endpoint)) as tracer:
        written.observer = DeliveryObserver(tracer, written.clock)
        await written.send_due(written.webhook(receiver))
    (request,) = receiver.received
    assert CODE in request.body["data"]["text"]
    assert collector.named("delivery") != []
    for secret in (CODE, "ann@example.com"):
        assert secret.encode() not in collector.content()
        assert secret not in str(written.events)


async def test_a_dispatcher_without_traces_passes_that_of_the_message_on(
    outbox: Outbox, receiver: WebhookReceiver
) -> None:
    outbox.add("a1", trace=TRACE)
    outbox.add("b1", contact="bob@example.com")
    await outbox.send_due(outbox.webhook(receiver))
    given = {request.key: request.headers.get("traceparent") for request in receiver.received}
    assert given == {"a1": TRACE, "b1": None}
    lines = {line["key"]: line.get("trace_id") for line in outbox.logged("delivery")}
    assert lines == {"a1": TRACE.split("-")[1], "b1": None}


async def test_a_message_without_a_trace_begins_one(
    outbox: Outbox, collector: OtlpCollector
) -> None:
    outbox.add("a1")
    outbox.add("b1", contact="bob@example.com")
    with closing(OtlpTracer(collector.endpoint)) as tracer:
        outbox.observer = DeliveryObserver(tracer, outbox.clock)
        await outbox.send_due()
    spans = collector.named("delivery")
    assert [span.parent_span_id for span in spans] == [b"", b""]
    assert len(trace_ids(spans)) == 2


def test_an_agent_without_traces_writes_none(path: Path) -> None:
    with Agent(AgentConfig(database=str(path)), model=ScriptedModel(SCRIPT)) as agent:
        agent.handle("s", "i'm Ann, ann@example.com", "m1")
    with closing(Database(database_url(str(path)))) as database, database.transaction() as db:
        assert [row.trace for row in db.query(OutboxMessage)] == [None]
