"""Traces of turns, exported to a real OTLP collector."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider
from sqlalchemy import select
from tests.support.agent_process import SCRIPT, AgentUnderTest
from tests.support.broken_provider import broken_provider
from tests.support.command_line import UNREACHABLE, gpt2flow
from tests.support.otlp_collector import OtlpCollector, attributes, otlp_collector
from tests.support.scripted_model import FailingModel, ScriptedModel
from tests.support.shop import CODE, Shop
from tests.support.waiting import eventually

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.errors import InputError, ModelError, ModelUnavailableError
from gpt2flow.agent.payments.http import HttpPayments
from gpt2flow.agent.payments.payer import Payer
from gpt2flow.agent.shop import (
    CustomerSession,
    Database,
    ExecutedAction,
    ModelCall,
    OutboxMessage,
    database_url,
)
from gpt2flow.agent.telemetry.otlp import OtlpTracer
from gpt2flow.agent.turns.model import ChoiceModel

pytestmark = pytest.mark.process

ORDER = ("i'm Ann, ann@example.com", CODE, "a kettle to 5 Oak Rd")


@pytest.fixture
def collector() -> Iterator[OtlpCollector]:
    with otlp_collector() as collector:
        yield collector


def handle(
    path: Path,
    collector: OtlpCollector,
    *messages: str,
    model: ChoiceModel | None = None,
    **settings: Any,
) -> None:
    """Handle messages with ids `m0`, `m1` and so on, and export traces."""
    config = AgentConfig(database=str(path), otlp_endpoint=collector.endpoint, **settings)
    with Agent(config, model=model or ScriptedModel(SCRIPT), codes=lambda: CODE) as agent:
        for number, text in enumerate(messages):
            agent.handle("s", text, f"m{number}")


def children(collector: OtlpCollector, parent: Span) -> list[str]:
    """Return the names of the spans below a span, oldest first."""
    found = [span for span in collector.spans if span.parent_span_id == parent.span_id]
    assert all(span.trace_id == parent.trace_id for span in found)
    return [span.name for span in sorted(found, key=lambda span: span.start_time_unix_nano)]


def values(spans: Sequence[Span], name: str) -> list[Any]:
    return [attributes(span).get(f"gpt2flow.{name}") for span in spans]


def keys(path: Path, table: type[ExecutedAction | ModelCall | OutboxMessage]) -> set[str]:
    """Return the keys of a table."""
    with closing(Database(database_url(str(path)))) as database, database.transaction() as db:
        return set(db.scalars(select(table.key)))


def test_a_turn_is_one_trace_with_its_calls_actions_payment_and_event(
    path: Path, collector: OtlpCollector
) -> None:
    handle(path, collector, *ORDER, "yes")
    assert collector.services == {"gpt2flow-agent"}
    turn = collector.named("turn")[-1]
    assert turn.parent_span_id == b""
    assert attributes(turn) == {
        "session.id": "s",
        "gpt2flow.message_id": "m3",
        "gpt2flow.result": "handled",
        "gpt2flow.language": "en",
    }
    parts = ["model_call", "action", "payment", "model_call", "event"]
    assert children(collector, turn) == parts
    [event] = collector.named("event")
    assert attributes(event) == {
        "session.id": "s",
        "gpt2flow.event": "order_submitted",
        "gpt2flow.order": "SO-1001",
        "gpt2flow.attempt": 1,
        "gpt2flow.postponed": False,
    }
    assert children(collector, event) == ["model_call", "action"] * 2
    assert len({span.trace_id for span in collector.named("turn")}) == 4


def test_a_turn_continues_the_trace_of_its_caller(path: Path, collector: OtlpCollector) -> None:
    with TracerProvider().get_tracer("shop").start_as_current_span("checkout") as caller:
        handle(path, collector, "hello")
    [turn] = collector.named("turn")
    context = caller.get_span_context()
    assert int.from_bytes(turn.trace_id) == context.trace_id
    assert int.from_bytes(turn.parent_span_id) == context.span_id


def test_a_model_call_has_its_tokens_and_its_confidence(
    path: Path, collector: OtlpCollector
) -> None:
    handle(path, collector, "hello")
    call = collector.named("model_call")[0]
    assert call.kind == Span.SPAN_KIND_CLIENT
    assert attributes(call) == {
        "gpt2flow.key": "s/m0/0",
        "gpt2flow.attempt": 1,
        "gpt2flow.confidence": 1.0,
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "gpt2flow",
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 8,
    }


def test_an_action_names_the_rows_that_it_changed(path: Path, collector: OtlpCollector) -> None:
    handle(path, collector, *ORDER[:2], "a kettle and a lamp")
    action = collector.named("action")[-1]
    assert attributes(action) == {
        "gpt2flow.key": "s/m2/1",
        "gpt2flow.action": "add_to_cart",
        "gpt2flow.outcome": "added",
        "gpt2flow.result": "ok",
        "gpt2flow.resumed": False,
        "gpt2flow.rows": ["sessions/s", "cart_lines/s,desk-lamp"],
    }


def test_keys_join_spans_with_their_rows(path: Path, collector: OtlpCollector) -> None:
    handle(path, collector, *ORDER, "yes")
    actions = set(values(collector.named("action"), "key"))
    assert actions == keys(path, ExecutedAction)
    assert set(values(collector.named("model_call"), "key")) == keys(path, ModelCall)
    assert keys(path, OutboxMessage) <= actions


def test_spans_have_no_texts_unless_asked_for(path: Path, collector: OtlpCollector) -> None:
    handle(path, collector, *ORDER)
    secrets = [CODE, "Ann", "ann@example.com", "Oak", "Your cart"]
    assert [text for text in secrets if text.encode() in collector.content()] == []
    handle(path, collector, *ORDER, "my cart", trace_messages=True)
    turn = attributes(collector.named("turn")[-1])
    assert turn["gpt2flow.text"] == "my cart"
    assert turn["gpt2flow.replies"] == ["Your cart: 1 × electric kettle (29.90). Total 29.90."]


def test_a_verification_code_is_in_no_trace(path: Path, collector: OtlpCollector) -> None:
    """Messages to a contact are left out even from requested texts."""
    handle(path, collector, ORDER[0], trace_messages=True)
    assert attributes(collector.named("turn")[0])["gpt2flow.replies"] == []
    assert CODE.encode() not in collector.content()


def test_a_failed_turn_says_how_but_not_with_which_text(
    path: Path, collector: OtlpCollector
) -> None:
    model = FailingModel(ScriptedModel(SCRIPT), 1, ModelError("cannot read 'my cart'"))
    with pytest.raises(ModelError):
        handle(path, collector, "my cart", model=model)
    [turn] = collector.named("turn")
    first, failed = collector.named("model_call")
    assert values([turn], "result") == ["model_error"]
    for span in (turn, failed):
        assert attributes(span)["error.type"] == "ModelError"
        assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "")
    assert first.status.code == Status.STATUS_CODE_UNSET
    assert b"my cart" not in collector.content()


def test_a_turn_that_is_resumed_stays_in_its_trace(path: Path, collector: OtlpCollector) -> None:
    model = FailingModel(ScriptedModel(SCRIPT), 1)
    with pytest.raises(ModelError):
        handle(path, collector, "a kettle and a lamp", model=model)
    handle(path, collector, "a kettle and a lamp")
    failed, resumed = collector.named("turn")
    assert values([failed, resumed], "result") == ["model_error", "handled"]
    assert failed.trace_id == resumed.trace_id
    assert (failed.parent_span_id, resumed.parent_span_id) == (b"", b"")
    assert children(collector, resumed) == ["model_call", "action", "model_call"]


def test_a_repeated_message_has_no_second_span(path: Path, collector: OtlpCollector) -> None:
    handle(path, collector, "hello")
    handle(path, collector, "hello")
    assert len(collector.named("turn")) == 1


def test_attempts_at_a_call_are_numbered_until_a_person_takes_over(
    path: Path, collector: OtlpCollector
) -> None:
    model = FailingModel(ScriptedModel(SCRIPT), 0, ModelUnavailableError("down"))
    handle(path, collector, "hello", model=model, patience=1.0)
    [turn] = collector.named("turn")
    assert children(collector, turn) == ["model_call", "model_call", "action"]
    assert values(collector.named("model_call"), "attempt") == [1, 2]
    [action] = collector.named("action")
    assert values([action], "outcome") == ["model_unavailable"]
    assert values([action], "key") == ["s/m0/outage"]


def test_the_turn_of_a_person_names_them(path: Path, collector: OtlpCollector) -> None:
    handle(path, collector, "hello")
    with closing(Database(database_url(str(path)))) as database, database.transaction() as db:
        db.get_one(CustomerSession, "s").attended_by = "zoe"
    handle(path, collector, "hello", "are you there?")
    turn = collector.named("turn")[-1]
    assert values([turn], "result") + values([turn], "attended_by") == ["attended", "zoe"]
    assert children(collector, turn) == []


def test_an_event_that_another_process_handles_later_is_in_the_trace_of_its_turn(
    path: Path, collector: OtlpCollector
) -> None:
    model = FailingModel(ScriptedModel(SCRIPT), 9)
    handle(path, collector, *ORDER, "yes", model=model)
    first = collector.named("event")[0]
    assert values([first], "postponed") == [True]
    with AgentUnderTest(str(path), collector=collector.endpoint):
        eventually(lambda: "details_sent" in outcomes(path))
    turn, events = collector.named("turn")[-1], collector.named("event")
    assert len(events) >= 2
    assert {(each.trace_id, each.parent_span_id) for each in events} == {
        (turn.trace_id, turn.span_id)
    }
    assert values(events, "attempt") == list(range(1, len(events) + 1))
    assert values(events, "postponed") == [True] * (len(events) - 1) + [False]


def outcomes(path: Path) -> set[str | None]:
    with closing(Database(database_url(str(path)))) as database, database.transaction() as db:
        return set(db.scalars(select(ExecutedAction.outcome)))


def test_a_turn_that_another_process_takes_over_stays_in_its_trace(
    path: Path, collector: OtlpCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with AgentUnderTest(str(path), collector=collector.endpoint) as agent:
        agent.hold()
        agent.send("s", "m0", "a kettle and a lamp")
        eventually(lambda: collector.named("action") != [])
        agent.kill()
    assert collector.named("turn") == []
    with AgentUnderTest(str(path), collector=collector.endpoint):
        pass
    [turn] = collector.named("turn")
    assert values(collector.named("action"), "outcome") == ["added", "added"]
    assert {span.trace_id for span in collector.spans} == {turn.trace_id}


def test_each_attempt_at_a_payment_has_a_span(shop: Shop, collector: OtlpCollector) -> None:
    shop.log_in("s")
    shop.check_out("s", "kettle")
    shop.act("s", "confirm_order")
    tracer = OtlpTracer(collector.endpoint)
    with (
        broken_provider(lambda _connection: None) as provider,
        closing(HttpPayments(provider.url)) as port,
        closing(tracer),
    ):
        payer = Payer(port, shop.database, shop.book.cases, shop.clock, tracer=tracer)
        for _ in range(2):
            [payment] = payer.due()
            payer.settle(payment)
            payer.settle(payment)  # It is not due, and no attempt.
            shop.clock.forward(minutes=1)
    first, second = collector.named("payment")
    assert first.kind == Span.SPAN_KIND_CLIENT
    assert attributes(first) == {
        "gpt2flow.payment": payment,
        "gpt2flow.key": "SO-1001/1/charge",
        "gpt2flow.kind": "charge",
        "gpt2flow.order": "SO-1001",
        "gpt2flow.attempt": 1,
        "gpt2flow.result": "requested",
    }
    assert values([second], "attempt") == [2]
    assert b"ann@example.com" not in collector.content()


def test_an_unreachable_collector_fails_no_turn(path: Path) -> None:
    config = AgentConfig(database=str(path), otlp_endpoint=f"http://{UNREACHABLE}")
    with Agent(config, model=ScriptedModel(SCRIPT)) as agent:
        assert agent.handle("s", "hello").result == "handled"


@pytest.mark.parametrize(
    "endpoint", ["", "127.0.0.1:4317", "http://a", "ftp://a:1", "http://a:1/x"]
)
def test_an_endpoint_of_another_form_is_refused(endpoint: str) -> None:
    with pytest.raises(InputError, match="must be http://host:port or https://host:port"):
        AgentConfig(otlp_endpoint=endpoint)


def test_a_bad_endpoint_exits_with_2_in_one_line(tmp_path: Path) -> None:
    code, _, err = gpt2flow("agent", "ask", "hello", "--otlp-endpoint", "here", cwd=tmp_path)
    assert code == 2
    assert err.startswith("gpt2flow: error: otlp_endpoint is 'here', must be http://host:port")
    assert len(err.splitlines()) == 1


WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.errors import AgentError
Agent(AgentConfig(database=sys.argv[1])).close()
try:
    Agent(AgentConfig(database=sys.argv[1], otlp_endpoint="http://a:1"))
except AgentError as error:
    print(error)
"""


def test_opentelemetry_is_needed_for_traces_only(path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(path)], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("traces need the package 'opentelemetry")
    assert result.stdout.endswith("pip install 'gpt2flow[otlp]'\n")
