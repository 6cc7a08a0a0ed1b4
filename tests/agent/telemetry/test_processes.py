"""Traces over two processes: `agent serve`, and the model server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.support.http_process import EndpointProcess, endpoint_process
from tests.support.otlp_collector import OtlpCollector, attributes, otlp_collector
from tests.support.project import SHIPPED_BUNDLE
from tests.support.server_process import server_process
from tests.support.waiting import eventually

pytestmark = pytest.mark.process

RPC = "gpt2flow.inference.v1.InferenceService/Generate"
TEXT = "two umbrellas please"


@pytest.fixture(scope="module")
def collector() -> Iterator[OtlpCollector]:
    with otlp_collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def agent(
    tmp_path_factory: pytest.TempPathFactory, new_shop: Path, collector: OtlpCollector
) -> Iterator[EndpointProcess]:
    """Agent that has handled a message twice, and exported its spans."""
    folder = tmp_path_factory.mktemp("traces")
    (folder / "shop.sqlite").write_bytes(new_shop.read_bytes())
    traces = ("--otlp-endpoint", collector.endpoint)
    files = ("--database", str(folder / "shop.sqlite"), "--ready-file", str(folder / "port"))
    serve = ("gpt2flow.cli", "agent", "serve", "--address", "127.0.0.1:0", *files, *traces)
    with (
        server_process(SHIPPED_BUNDLE, folder, *traces, name="shop", limits=()) as server,
        endpoint_process(folder, *serve, "--server", server.address) as agent,
    ):
        for _ in range(2):
            agent.post(TEXT, "m1")
        agent.terminate()
        assert agent.wait() == 0
        server.stop()
        eventually(lambda: len(collector.named(RPC)) == len(collector.named("model_call")))
        yield agent


@pytest.mark.usefixtures("agent")
def test_spans_of_agent_and_server_are_one_trace(collector: OtlpCollector) -> None:
    [turn] = collector.named("turn")
    assert attributes(turn)["gpt2flow.result"] == "handled"
    calls, rpcs = collector.named("model_call"), collector.named(RPC)
    assert len(calls) >= 2
    assert [rpc.parent_span_id for rpc in rpcs] == [call.span_id for call in calls]
    assert {span.kind for span in rpcs} == {Span.SPAN_KIND_SERVER}
    joined = [turn, *calls, *rpcs, *collector.named("action"), *collector.named("prefill")]
    assert {span.trace_id for span in joined} == {turn.trace_id}
    assert collector.services == {"gpt2flow", "gpt2flow-agent"}
    assert TEXT.encode() not in collector.content()


@pytest.mark.usefixtures("agent")
def test_agent_and_server_count_the_same_tokens(collector: OtlpCollector) -> None:
    for call, rpc in zip(collector.named("model_call"), collector.named(RPC), strict=True):
        for name in ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"):
            assert attributes(call)[name] == attributes(rpc)[name]
        assert 0 < attributes(call)["gpt2flow.confidence"] <= 1


def test_lines_of_the_log_name_the_trace(agent: EndpointProcess, collector: OtlpCollector) -> None:
    [turn] = collector.named("turn")
    lines = agent.events("turn")
    assert [line["result"] for line in lines] == ["handled", "repeated"]
    assert {line["trace_id"] for line in lines} == {turn.trace_id.hex()}
