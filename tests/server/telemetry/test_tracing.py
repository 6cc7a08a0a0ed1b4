"""Traces, exported to a real OTLP collector."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.support.otlp_collector import OtlpCollector, attributes, otlp_collector
from tests.support.running_server import PROMPT, failure, greedy, server_config, serving

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server import TelemetryConfig

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
SERVICE = "gpt2flow.inference.v1.InferenceService"


@pytest.fixture
def collector() -> Iterator[tuple[OtlpCollector, TelemetryConfig]]:
    with otlp_collector() as received:
        yield received, TelemetryConfig(otlp_endpoint=received.endpoint)


async def test_spans_continue_the_trace_of_the_client(
    bundle: Path, collector: tuple[OtlpCollector, TelemetryConfig]
) -> None:
    received, telemetry = collector
    async with serving(server_config(bundle, telemetry=telemetry)) as running:
        request = pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(8))
        call = running.stub.GenerateStream(request, metadata=TRACEPARENT)
        messages = [message async for message in call]
    result = messages[-1].end.result
    [span] = received.named(f"{SERVICE}/GenerateStream")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.kind == Span.SPAN_KIND_SERVER
    assert span.status.code == Status.STATUS_CODE_UNSET
    reported = attributes(span)
    assert reported["rpc.system.name"] == "grpc"
    assert reported["rpc.response.status_code"] == "OK"
    assert reported["gen_ai.operation.name"] == "text_completion"
    assert reported["gen_ai.request.model"] == "first"
    assert reported["gen_ai.usage.input_tokens"] == result.usage.prompt_tokens
    assert reported["gen_ai.usage.output_tokens"] == 8
    assert reported["gen_ai.response.finish_reasons"] == ["length"]
    assert received.services == {"gpt2flow"}
    start = span.start_time_unix_nano
    for phase in ("queue", "prefill", "decode"):
        [child] = received.named(phase)
        assert (child.trace_id, child.parent_span_id) == (span.trace_id, span.span_id)
        length = child.end_time_unix_nano - child.start_time_unix_nano
        assert length / 1e6 == pytest.approx(getattr(result.timing, f"{phase}_ms"), abs=0.01)
        assert child.start_time_unix_nano >= start
        start = child.end_time_unix_nano
    assert PROMPT.text.encode() not in received.content()


async def test_spans_report_errors_and_skip_unsampled_traces(
    bundle: Path, collector: tuple[OtlpCollector, TelemetryConfig]
) -> None:
    received, telemetry = collector
    async with serving(server_config(bundle, telemetry=telemetry)) as running:
        await failure(running.stub.Generate(pb.GenerateRequest(model="x", prompts=[PROMPT])))
        late = pb.GenerateRequest(prompts=[PROMPT], options=greedy(70))
        late.options.stopping.time_limit_ms = 1
        await failure(running.stub.Generate(late))
        unsampled = (("traceparent", f"00-{TRACE}-{PARENT}-00"),)
        await running.stub.Tokenize(pb.TokenizeRequest(text="a"), metadata=unsampled)
    unknown, expired = received.named(f"{SERVICE}/Generate")
    assert unknown.parent_span_id == b""
    assert unknown.trace_id != expired.trace_id
    assert attributes(unknown)["rpc.response.status_code"] == "NOT_FOUND"
    assert (
        unknown.status.code == Status.STATUS_CODE_UNSET
    )  # Errors of the client do not fail the server's span.
    assert attributes(expired)["error.type"] == "DEADLINE_EXCEEDED"
    assert expired.status.code == Status.STATUS_CODE_ERROR
    assert received.named(f"{SERVICE}/Tokenize") == []


async def test_an_unreachable_collector_fails_no_request(bundle: Path) -> None:
    telemetry = TelemetryConfig(otlp_endpoint="http://127.0.0.1:1")
    async with serving(server_config(bundle, telemetry=telemetry)) as running:
        request = pb.GenerateRequest(prompts=[PROMPT], options=greedy(3))
        assert (await running.stub.Generate(request)).results


WITHOUT = """
import asyncio, sys
sys.modules["opentelemetry"] = None
from pathlib import Path
from gpt2flow.server import Server, ServerConfig, StartupError, TelemetryConfig
models = {"m": Path("nowhere")}
async def main():
    Server(ServerConfig(models=models))
    try:
        Server(ServerConfig(models=models, telemetry=TelemetryConfig(otlp_endpoint="http://a:1")))
    except StartupError as error:
        print(error)
asyncio.run(main())
"""


def test_opentelemetry_is_needed_for_traces_only() -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("traces need the package 'opentelemetry")
    assert result.stdout.endswith("pip install 'gpt2flow[telemetry]'\n")
