"""Trace context of requests: turns are children of their callers' spans."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.support.http_endpoint import (
    OTHER_SECRET,
    HeldModel,
    RunningEndpoint,
    Served,
    new_session,
    sign,
)
from tests.support.otlp_collector import OtlpCollector, attributes, otlp_collector
from tests.support.waiting import eventually

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.errors import ModelError

pytestmark = pytest.mark.process

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture(scope="module")
def collector() -> Iterator[OtlpCollector]:
    with otlp_collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, new_shop: Path, collector: OtlpCollector
) -> Iterator[Served]:
    """Agent that exports traces soon after each span."""
    path = tmp_path_factory.mktemp("http") / "shop.sqlite"
    path.write_bytes(new_shop.read_bytes())
    held = threading.Event()
    model = HeldModel(lambda _prompt: held.is_set())
    config = AgentConfig(database=str(path), otlp_endpoint=collector.endpoint)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        with Agent(config, model=model) as agent:
            yield Served(agent, model, str(path), held)


def turns(collector: OtlpCollector, session: str, number: int = 1) -> list[Span]:
    """Return the spans of a session's turns, once there are so many."""

    def found() -> list[Span]:
        spans = collector.named("turn")
        return [span for span in spans if attributes(span)["session.id"] == session]

    eventually(lambda: len(found()) >= number)
    return found()


def body(session: str, **more: str) -> str:
    fields = "".join(f', "{name}": "{value}"' for name, value in more.items())
    return f'{{"session": "{session}", "text": "hello"{fields}}}'


def test_a_turn_is_a_child_of_the_span_of_its_signed_request(
    signed: RunningEndpoint, collector: OtlpCollector
) -> None:
    session = new_session()
    assert signed.send(body(session), traceparent=CALLER).status_code == 200
    [turn] = turns(collector, session)
    assert (turn.trace_id.hex(), turn.parent_span_id.hex()) == (TRACE, SPAN)


def test_an_unsigned_request_of_this_machine_has_the_same(
    endpoint: RunningEndpoint, collector: OtlpCollector
) -> None:
    session = new_session()
    endpoint.send(body(session), traceparent=CALLER, accept="text/event-stream")
    [turn] = turns(collector, session)
    assert turn.parent_span_id.hex() == SPAN


@pytest.mark.parametrize(
    "header",
    [
        "",
        "hello",
        CALLER.upper(),
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-zz",
        "a-b-c-d" * 1000,
    ],
)
def test_a_header_of_another_form_is_ignored(
    endpoint: RunningEndpoint, collector: OtlpCollector, header: str
) -> None:
    session = new_session()
    assert endpoint.send(body(session), traceparent=header).status_code == 200
    [turn] = turns(collector, session)
    assert turn.parent_span_id == b""
    assert turn.trace_id.hex() != TRACE


def test_two_headers_are_ignored(endpoint: RunningEndpoint, collector: OtlpCollector) -> None:
    session = new_session()
    headers = [("content-type", "application/json"), *[("traceparent", CALLER)] * 2]
    endpoint.client.post("/v1/messages", content=body(session), headers=headers)
    [turn] = turns(collector, session)
    assert turn.parent_span_id == b""


def test_a_refused_request_leaves_no_span(
    signed: RunningEndpoint, collector: OtlpCollector
) -> None:
    session, trace = new_session(), "1" * 32
    forged = sign(body(session), OTHER_SECRET)
    names = {name.replace("-", "_"): value for name, value in forged.items()}
    caller = f"00-{trace}-{SPAN}-01"
    assert signed.send(body(session), traceparent=caller, **names).status_code == 401
    signed.send(body(session))
    [turn] = turns(collector, session)
    assert turn.parent_span_id == b""
    assert trace not in {span.trace_id.hex() for span in collector.spans}


def test_a_retried_turn_stays_in_the_trace_of_its_first_request(
    endpoint: RunningEndpoint, served: Served, collector: OtlpCollector
) -> None:
    session, other = new_session(), f"00-{'2' * 32}-{SPAN}-01"
    served.model.error = ModelError("down")
    message = body(session, id="m1")
    assert endpoint.send(message, traceparent=CALLER).status_code == 503
    served.model.error = None
    assert endpoint.send(message, traceparent=other).status_code == 200
    spans = turns(collector, session, number=2)
    assert {span.parent_span_id.hex() for span in spans} == {SPAN}
    assert {span.trace_id.hex() for span in spans} == {TRACE}
