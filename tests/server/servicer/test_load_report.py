"""Load report in the trailing metadata of calls that ask for it."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import http2, open_inference
from tests.support.engine_bench import SLOTS
from tests.support.run_gate import closed_gate
from tests.support.running_server import PROMPT, RunningServer, greedy, server_config, serving
from tests.support.waiting import SECONDS, until

from gpt2flow.inference.orca.v3.load_report_pb2 import OrcaLoadReport
from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server import SecurityConfig
from gpt2flow.server.servicer import SERVICE_NAME
from gpt2flow.server.servicer.responses import build_load_report
from gpt2flow.server.telemetry.load_report import LoadReport

pytestmark = pytest.mark.process

IDLE = {"kv_cache_usage_perc": 0.0, "num_requests_running": 0.0, "num_requests_waiting": 0.0}
# The example in the documentation of ORCA: cpu_utilization 0.1, rps_fractional 2, two metrics.
FOREIGN = "CZqZmZmZmbk/MQAAAAAAAABAQg4KA2ZvbxGamZmZmZm5P0IOCgNiYXIRmpmZmZmZyT8="


def asking(load_format: str) -> Any:
    return (("endpoint-load-metrics-format", load_format),)


async def trailers(call: Any) -> dict[str, str | bytes]:
    """Return the trailing metadata of a call, which may fail."""
    await call.code()
    return dict(await call.trailing_metadata() or ())


def of_text(report: Any) -> Mapping[str, float]:
    kind, _, pairs = report.partition(" ")
    assert kind == "TEXT"
    return {name: float(value) for name, value in (pair.split("=") for pair in pairs.split(", "))}


def of_json(report: Any) -> Any:
    kind, _, content = report.partition(" ")
    assert kind == "JSON"
    return json.loads(content)


@pytest.mark.parametrize("load_format", ["TEXT", "text", " JSON ", "json"])
async def test_each_format_reports_an_idle_server(running: RunningServer, load_format: str) -> None:
    found = await trailers(
        running.stub.ListModels(pb.ListModelsRequest(), metadata=asking(load_format))
    )
    assert "x-request-id" in found
    report = found["endpoint-load-metrics"]
    if load_format.upper() == "TEXT":
        named = {f"named_metrics.{name}": value for name, value in IDLE.items()}
        assert of_text(report) == {"application_utilization": 0.0, **named}
    else:
        assert of_json(report) == {"application_utilization": 0.0, "named_metrics": IDLE}


async def test_the_binary_format_is_orcas_message(running: RunningServer) -> None:
    # gRPC's own client keeps this key for its balancers, so the connection is read here.
    reader, writer = await asyncio.open_connection("localhost", running.port)
    path = f"/{SERVICE_NAME}/ListModels"
    call = http2.headers(path, 1, dict(asking("BIN"))) + http2.only_message(b"", 1)
    writer.write(http2.PREFACE + http2.TRUE_BINARY + call)
    received = b""
    while (report := http2.binary_metadata(received, "endpoint-load-metrics-bin")) is None:
        piece = await asyncio.wait_for(reader.read(65536), SECONDS)
        assert piece, f"the connection ended after {received!r}"
        received += piece
    writer.close()
    await writer.wait_closed()
    assert dict(OrcaLoadReport.FromString(report).named_metrics) == IDLE


async def test_a_report_is_sent_only_if_it_is_asked_for(running: RunningServer) -> None:
    request = pb.GenerateRequest(prompts=[PROMPT], options=greedy(3))
    assert set(await trailers(running.stub.Generate(request))) == {"x-request-id"}
    unknown = running.stub.Generate(request, metadata=asking("XML"))
    assert set(await trailers(unknown)) == {"x-request-id"}
    assert await unknown.code() == grpc.StatusCode.OK


async def test_the_report_is_the_load_of_the_calls_model(running: RunningServer) -> None:
    request = pb.GenerateRequest(prompts=[PROMPT], options=greedy(30))

    async def report(model: str) -> Any:
        call = running.stub.Tokenize(
            pb.TokenizeRequest(text="a", model=model), metadata=asking("JSON")
        )
        return of_json((await trailers(call))["endpoint-load-metrics"])

    with closed_gate(running.engine) as gate:
        calls = [running.stub.Generate(request) for _ in range(SLOTS + 2)]
        await gate.until_unfinished(SLOTS + 2)
        # Requests are queued or admitted between two runs.
        gate.allow(2)
        await until(lambda: running.engine.load.waiting == 2 and gate.waiting)
        busy, idle = await report("first"), await report("second")
        assert busy["named_metrics"] == {
            "kv_cache_usage_perc": 1.0,
            "num_requests_running": SLOTS,
            "num_requests_waiting": 2,
        }
        assert busy["application_utilization"] == pytest.approx((SLOTS + 2) / SLOTS)
        assert idle == {"application_utilization": 0.0, "named_metrics": IDLE}
        both = await trailers(
            running.stub.ListModels(pb.ListModelsRequest(), metadata=asking("JSON"))
        )
        together = of_json(both["endpoint-load-metrics"])
        assert together["application_utilization"] == pytest.approx((SLOTS + 2) / (2 * SLOTS))
        refused = running.stub.Generate(request, metadata=asking("TEXT"))
        found = await trailers(refused)
        assert await refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert of_text(found["endpoint-load-metrics"])["named_metrics.num_requests_waiting"] == 2
        assert {"grpc-retry-pushback-ms", "grpc-status-details-bin"} <= set(found)
        for call in calls:
            call.cancel()
        await gate.until_unfinished(0)


async def test_a_stream_ends_with_a_report(running: RunningServer) -> None:
    request = pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(3))
    stream = running.stub.GenerateStream(request, metadata=asking("JSON"))
    assert [message async for message in stream]
    assert of_json((await trailers(stream))["endpoint-load-metrics"])["named_metrics"]


async def test_kserves_protocol_has_the_same_report(running: RunningServer) -> None:
    stub = open_inference.stub_of(running.channel)
    call = stub.ModelInfer(open_inference.request(), metadata=asking("JSON"))
    report = of_json((await trailers(call))["endpoint-load-metrics"])
    assert set(report["named_metrics"]) == set(IDLE)


async def test_a_caller_without_a_token_does_not_learn_the_load(
    bundle: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(f'[[token]]\nname = "a"\nsha256 = "{hashlib.sha256(b"a").hexdigest()}"\n')
    request = pb.ListModelsRequest()
    async with serving(server_config(bundle, security=SecurityConfig(tokens=file))) as running:
        refused = running.stub.ListModels(request, metadata=asking("TEXT"))
        assert set(await trailers(refused)) == {"x-request-id"}
        assert await refused.code() == grpc.StatusCode.UNAUTHENTICATED
        bearing = (*asking("TEXT"), ("authorization", "Bearer a"))
        accepted = running.stub.ListModels(request, metadata=bearing)
        assert "endpoint-load-metrics" in await trailers(accepted)


def test_a_report_of_another_server_is_read() -> None:
    report = OrcaLoadReport.FromString(base64.b64decode(FOREIGN))
    assert dict(report.named_metrics) == {"foo": 0.1, "bar": 0.2}


FIGURES = st.floats(min_value=0, max_value=1e9)


@given(FIGURES, st.dictionaries(st.sampled_from(sorted(IDLE)), FIGURES))
def test_the_formats_say_the_same(utilization: float, named: dict[str, float]) -> None:
    report = LoadReport(utilization, named)
    message = OrcaLoadReport.FromString(build_load_report(report))
    assert message.application_utilization == utilization
    assert dict(message.named_metrics) == named
    assert of_json(report.json()) == {
        "application_utilization": utilization,
        "named_metrics": named,
    }
    expected = {f"named_metrics.{name}": value for name, value in named.items()}
    expected["application_utilization"] = utilization
    assert of_text(report.text()) == pytest.approx(expected, rel=1e-5)
