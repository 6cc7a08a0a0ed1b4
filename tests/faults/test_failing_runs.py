"""A model whose every run fails is NOT_SERVING until a run works."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from structlog.testing import capture_logs
from tests.support.running_server import PROMPT, RunningServer, failure, greedy, server_config
from tests.support.running_server import serving as running_server
from tests.support.scraping import LOOPBACK, scrape
from tests.support.waiting import SECONDS, until

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server import TelemetryConfig
from gpt2flow.server.engine import async_engine
from gpt2flow.server.engine.async_engine import FAILING_RUNS
from gpt2flow.server.models.reload import Reloader

pytestmark = pytest.mark.process

SHORT = pb.GenerateRequest(prompts=[PROMPT], options=greedy(5))
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def server(bundle: Path) -> AsyncIterator[RunningServer]:
    telemetry = TelemetryConfig(metrics_address=LOOPBACK)
    async with running_server(server_config(bundle, telemetry=telemetry)) as running:
        yield running


@contextmanager
def without_a_cache(running: RunningServer) -> Iterator[None]:
    """Take the KV cache from the first model, whose runs then fail."""
    runner: Any = running.engine.engine._runner
    runner._binding.clear_binding_inputs()
    try:
        yield
    finally:
        runner._binding = runner._bind_cache()


@pytest.fixture
def no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_engine, "_PROBE_SECONDS", SECONDS)


async def test_a_model_whose_runs_fail_is_not_served_until_a_probing_run_works(
    server: RunningServer,
) -> None:
    answer = await server.stub.Generate(SHORT)
    watch = server.health.Watch(HealthCheckRequest(service="first"))
    assert (await watch.read()).status == SERVING
    with capture_logs() as log:
        with without_a_cache(server):
            assert (await failure(server.stub.Generate(SHORT)))[0] == grpc.StatusCode.INTERNAL
            # Nobody sends any more: probing runs find out.
            assert (await watch.read()).status == NOT_SERVING
            assert await server.status("") == NOT_SERVING
            assert await server.status("second") == SERVING
            found = await scrape(server)
            assert found.get("run_failures_total", model="first") >= FAILING_RUNS
            assert found.get("model_failing", model="first") == 1
            assert found.get("run_failures_total", model="second") == 0
            assert found.get("model_failing", model="second") == 0
        assert (await watch.read()).status == SERVING
    assert await server.status("") == SERVING
    assert (await scrape(server)).get("model_failing") == 0
    again = await server.stub.Generate(SHORT)
    assert again.results[0].candidates == answer.results[0].candidates
    events = [line["event"] for line in log if line["event"].startswith("model_")]
    assert events == ["model_failing", "model_recovered"]
    watch.cancel()


@pytest.mark.usefixtures("no_probes")
async def test_requests_are_tried_on_a_failing_model(server: RunningServer) -> None:
    with without_a_cache(server):
        for _ in range(FAILING_RUNS):
            await failure(server.stub.Generate(SHORT))
        await until(lambda: server.engine.failing)
    assert await server.status("first") == NOT_SERVING
    assert len((await server.stub.Generate(SHORT)).results) == 1
    await until(lambda: server.engine.healthy)
    assert await server.status("first") == SERVING


@pytest.mark.usefixtures("no_probes")
async def test_a_request_that_fails_alone_leaves_the_model_serving(server: RunningServer) -> None:
    for _ in range(2 * FAILING_RUNS):
        with without_a_cache(server):
            await failure(server.stub.Generate(SHORT))
        assert len((await server.stub.Generate(SHORT)).results) == 1
        assert await server.status("first") == SERVING


@pytest.mark.usefixtures("no_probes")
async def test_a_reload_loads_a_failing_model_again(server: RunningServer, bundle: Path) -> None:
    broken = server.model
    with without_a_cache(server):
        for _ in range(FAILING_RUNS):
            await failure(server.stub.Generate(SHORT))
        await until(lambda: server.engine.failing)
        settings = server_config(bundle)
        reloader = Reloader(server.server.registry, settings, read=lambda: settings, file=None)
        await reloader._reload()
    assert server.model is not broken
    assert await server.status("first") == SERVING
    assert len((await server.stub.Generate(SHORT)).results) == 1
