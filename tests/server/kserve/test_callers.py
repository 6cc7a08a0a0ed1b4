"""Tokens, permissions, log and metrics of KServe's RPCs."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from tests.support.open_inference import greedy, is_final, request, stub_of
from tests.support.run_gate import closed_gate
from tests.support.running_server import (
    RunningServer,
    bad_fields,
    failure,
    server_config,
    serving,
)
from tests.support.scraping import LOOPBACK, until_counted

from gpt2flow.inference.kserve.v2 import open_inference_pb2 as pb
from gpt2flow.server import SecurityConfig, TelemetryConfig
from gpt2flow.server.kserve import KSERVE_NAME, KSERVE_RPCS

pytestmark = pytest.mark.process

ENTRIES = """
[[token]]
name = "operator"
sha256 = "{operator}"
manage_models = true

[[token]]
name = "some"
sha256 = "{some}"
models = ["second", "absent"]
max_requests = 2
max_new_tokens = 7
max_candidates = 2
max_beams = 3

[[token]]
name = "local"
sha256 = "{local}"
models = ["second"]
manage_models = true
"""
DENIED = grpc.StatusCode.PERMISSION_DENIED


def bearing(token: str) -> Any:
    return (("authorization", f"Bearer {token}"),)


OPERATOR, SOME, LOCAL = map(bearing, ("operator", "some", "local"))


@pytest.fixture
async def secured(bundle: Path, tmp_path: Path) -> AsyncIterator[RunningServer]:
    file = tmp_path / "tokens.toml"
    names = ("operator", "some", "local")
    file.write_text(
        ENTRIES.format(**{name: hashlib.sha256(name.encode()).hexdigest() for name in names})
    )
    # Tokens decide alone, whatever the setting says about callers without one.
    security = SecurityConfig(tokens=file, model_control=True)
    async with serving(server_config(bundle, security=security)) as running:
        yield running


async def test_probes_need_no_token_and_all_else_does(secured: RunningServer) -> None:
    stub = stub_of(secured.channel)
    assert (await stub.ServerLive(pb.ServerLiveRequest())).live
    assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
    assert (await stub.ModelReady(pb.ModelReadyRequest(name="first"))).ready
    for rpc in KSERVE_RPCS - {"ServerLive", "ServerReady", "ModelReady", "ModelStreamInfer"}:
        call = secured.channel.unary_unary(f"/{KSERVE_NAME}/{rpc}")(b"")
        assert (await failure(call))[0] is grpc.StatusCode.UNAUTHENTICATED, rpc
    # No request is sent: one that crosses the refusal makes grpc.aio report INTERNAL instead.
    stream = stub.ModelStreamInfer()
    assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_caller_uses_and_sees_its_models_only(secured: RunningServer) -> None:
    stub = stub_of(secured.channel)
    index = await stub.RepositoryIndex(pb.RepositoryIndexRequest(), metadata=SOME)
    assert [each.name for each in index.models] == ["second"]
    code, text, _ = await failure(stub.ModelInfer(greedy(2, model="first"), metadata=SOME))
    assert (code, text) == (DENIED, "'some' may not use this model; allowed: absent, second")
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="first"), metadata=SOME)
    assert (await failure(metadata))[0] is DENIED
    code, text, _ = await failure(stub.ModelInfer(greedy(2, model="absent"), metadata=SOME))
    assert text == "no model named 'absent'; loaded: second"
    stream = stub.ModelStreamInfer(iter([greedy(2)]), metadata=SOME)
    assert (await stream.read()).error_message.startswith("PERMISSION_DENIED: 'some' may not use")


async def test_limits_of_a_token_name_the_tensors(secured: RunningServer) -> None:
    stub = stub_of(secured.channel)
    message = request(max_tokens=8, n=3, model="second")
    code, text, detail = await failure(stub.ModelInfer(message, metadata=SOME))
    assert code is DENIED
    assert bad_fields(detail) == ["inputs.n", "inputs.max_tokens"]
    assert "inputs.n is 3, 'some' may have 2" in text
    beams = request(parameters={"beam_width": 4}, model="second")
    stream = stub.ModelStreamInfer(iter([beams]), metadata=SOME)
    assert "parameters.beam_width is 4" in (await stream.read()).error_message
    # Defaults are lowered instead.
    whole = await stub.ModelInfer(request(model="second", ignore_eos=True), metadata=SOME)
    assert whole.outputs[-1].contents.int_contents[0] == 7


async def test_the_quota_of_requests_is_shared_with_our_own_protocol(
    secured: RunningServer,
) -> None:
    stub, second = stub_of(secured.channel), secured.server.registry.models[1]
    three = greedy(2, text=["a", "b", "c"], model="second")
    assert (await failure(stub.ModelInfer(three, metadata=SOME)))[0] is DENIED
    with closed_gate(second.engine) as gate:
        stream = stub.ModelStreamInfer(iter([greedy(5, model="second")] * 2), metadata=SOME)
        await gate.until_unfinished(2)
        code, text, _ = await failure(stub.ModelInfer(greedy(2, model="second"), metadata=SOME))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "'some' would have 3 requests unfinished, may have 2" in text
        gate.open()
        answers = [each async for each in stream]
    assert sum(map(is_final, answers)) == 2


async def test_only_a_token_that_manages_models_may_change_them(secured: RunningServer) -> None:
    stub = stub_of(secured.channel)
    first = pb.RepositoryModelUnloadRequest(model_name="first")
    second = pb.RepositoryModelUnloadRequest(model_name="second")
    code, text, _ = await failure(stub.RepositoryModelUnload(second, metadata=SOME))
    assert code is DENIED
    assert text == "'some' may not load or unload models; that takes manage_models = true"
    assert (await failure(stub.RepositoryModelUnload(first, metadata=LOCAL)))[0] is DENIED
    await stub.RepositoryModelUnload(second, metadata=LOCAL)
    ready = pb.ModelReadyRequest(name="second")
    assert not (await stub.ModelReady(ready)).ready
    load = pb.RepositoryModelLoadRequest(model_name="second")
    await stub.RepositoryModelLoad(load, metadata=OPERATOR)
    assert (await stub.ModelReady(ready)).ready


async def test_calls_and_requests_of_streams_are_logged_and_counted(bundle: Path) -> None:
    telemetry = TelemetryConfig(metrics_address=LOOPBACK)
    async with serving(server_config(bundle, telemetry=telemetry)) as running:
        stub = stub_of(running.channel)
        with structlog.testing.capture_logs() as logs:
            await stub.ServerReady(pb.ServerReadyRequest())
            await stub.ModelInfer(greedy(3, text=["a", "b"]))
            messages = [greedy(4), greedy(5, model="second"), greedy(2, model="none")]
            stream = stub.ModelStreamInfer(iter(messages))
            assert len([each async for each in stream]) > 3
            scrape = await until_counted(running, 5)
    lines = [each for each in logs if each["event"] == "rpc"]
    assert [each["rpc"] for each in lines].count("ModelStreamInfer/request") == 3
    ended = {(each["rpc"], each["model"], each["code"]) for each in lines}
    assert ended == {
        ("ModelInfer", "first", "OK"),
        ("ModelStreamInfer/request", "first", "OK"),
        ("ModelStreamInfer/request", "second", "OK"),
        ("ModelStreamInfer/request", "", "NOT_FOUND"),
        ("ModelStreamInfer", "", "OK"),
    }
    assert scrape.get("completion_tokens_total", model="first") == 2 * 3 + 4
    assert scrape.get("completion_tokens_total", model="second") == 5
    errors = {"rpc": "ModelStreamInfer/request", "reason": "model_not_found"}
    assert scrape.get("errors_total", **errors) == 1
    assert scrape.get("rpcs_total", rpc="ServerReady") == 0


async def test_health_covers_the_service(running: RunningServer) -> None:
    status = await running.health.Check(HealthCheckRequest(service=KSERVE_NAME))
    assert status.status == HealthCheckResponse.SERVING
