"""Index, load and unload of the registry's models."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from grpc_health.v1.health_pb2 import HealthCheckResponse
from tests.support.bundles import copy_bundle, copy_damaged_bundle, swap_bundle
from tests.support.open_inference import greedy, is_final, responses, rest_of, stub_of
from tests.support.run_gate import closed_gate
from tests.support.running_server import (
    PROMPT,
    RunningServer,
    failure,
    server_config,
    serving,
)
from tests.support.running_server import greedy as own_greedy
from tests.support.waiting import until

from gpt2flow.inference.kserve.v2 import open_inference_pb2 as pb
from gpt2flow.inference.v1 import inference_pb2 as own
from gpt2flow.server import SecurityConfig, ServerConfig

pytestmark = pytest.mark.process

OPEN = SecurityConfig(model_control=True)
UNLOADED = "model 'first' is unloaded; RepositoryModelLoad brings it back"


@pytest.fixture
async def open_server(bundle: Path) -> AsyncIterator[RunningServer]:
    """Server that lets its clients load and unload models."""
    async with serving(server_config(bundle, security=OPEN)) as running:
        yield running


async def states(running: RunningServer, *, ready: bool = False) -> dict[str, tuple[str, str]]:
    """Return states and reasons of the index, by model."""
    request = pb.RepositoryIndexRequest(ready=ready)
    index = await stub_of(running.channel).RepositoryIndex(request)
    return {each.name: (each.state, each.reason) for each in index.models}


def load(running: RunningServer, name: str, **fields: Any) -> Any:
    request = pb.RepositoryModelLoadRequest(model_name=name, **fields)
    return stub_of(running.channel).RepositoryModelLoad(request)


def unload(running: RunningServer, name: str, **fields: Any) -> Any:
    request = pb.RepositoryModelUnloadRequest(model_name=name, **fields)
    return stub_of(running.channel).RepositoryModelUnload(request)


async def is_ready(running: RunningServer, name: str) -> bool:
    response = await stub_of(running.channel).ModelReady(pb.ModelReadyRequest(name=name))
    return bool(response.ready)


async def test_an_unloaded_model_is_unavailable_until_it_is_loaded(
    open_server: RunningServer,
) -> None:
    running, stub = open_server, stub_of(open_server.channel)
    assert await states(running) == {"first": ("READY", ""), "second": ("READY", "")}
    dependents = {"unload_dependents": pb.ModelRepositoryParameter(bool_param=True)}
    await unload(running, "first", parameters=dependents)
    await unload(running, "first")
    assert await states(running) == {"first": ("UNAVAILABLE", UNLOADED), "second": ("READY", "")}
    assert list(await states(running, ready=True)) == ["second"]
    assert not await is_ready(running, "first")
    assert await running.status("first") == HealthCheckResponse.NOT_SERVING
    # The server as a whole serves what is loaded.
    assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
    refusal = (grpc.StatusCode.UNAVAILABLE, UNLOADED)
    generate = own.GenerateRequest(prompts=[PROMPT], options=own_greedy(2))
    # It stays the default model.
    assert (await failure(running.stub.Generate(generate)))[:2] == refusal
    assert (await failure(stub.ModelInfer(greedy(2, model="first"))))[:2] == refusal
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="first"))
    assert (await failure(metadata))[:2] == refusal
    assert (await stub.ModelInfer(greedy(2, model="second"))).model_name == "second"
    await load(running, "first")
    assert await states(running) == {"first": ("READY", ""), "second": ("READY", "")}
    assert await running.status("first") == HealthCheckResponse.SERVING
    assert (await running.stub.Generate(generate)).model == "first"


async def test_requests_on_an_unloaded_model_end_on_it(open_server: RunningServer) -> None:
    model = open_server.model
    with closed_gate(model.engine) as gate:
        call = stub_of(open_server.channel).ModelStreamInfer(iter([greedy(60)]))
        await gate.begin(call)
        await unload(open_server, "first")
        gate.open()
        answers = await rest_of(call)
    assert is_final(answers[-1])
    assert not answers[-1].error_message
    await until(lambda: not open_server.server.registry._retiring)
    assert not model.engine._thread.is_alive()


async def test_a_server_without_a_loaded_model_is_not_ready(open_server: RunningServer) -> None:
    for name in ("first", "second"):
        await unload(open_server, name)
    ready = await stub_of(open_server.channel).ServerReady(pb.ServerReadyRequest())
    assert not ready.ready
    live = await stub_of(open_server.channel).ServerLive(pb.ServerLiveRequest())
    assert live.live
    for name in ("second", "first"):
        await load(open_server, name)
    assert [each.name for each in open_server.server.registry.models] == ["first", "second"]


async def test_a_load_replaces_a_changed_bundle(bundle: Path, tmp_path: Path) -> None:
    place = copy_bundle(bundle, tmp_path / "served")
    config = ServerConfig(models={"m": place}, port=0, security=OPEN)
    async with serving(config) as running:
        before = running.model
        await load(running, "m")
        assert running.model is before
        swap_bundle(copy_bundle(bundle, tmp_path / "new", run="2"), place)
        await load(running, "m")
        assert running.model.bundle.fingerprint != before.bundle.fingerprint
        kept = running.model
        swap_bundle(copy_damaged_bundle(bundle, tmp_path / "damaged"), place)
        code, text, _ = await failure(load(running, "m"))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert text.startswith("model 'm' was not loaded: ")
        assert "model.onnx.data" in text
        assert running.model is kept
        assert await is_ready(running, "m")


async def test_a_reload_of_the_settings_keeps_a_model_out(open_server: RunningServer) -> None:
    registry = open_server.server.registry
    configs = open_server.server._config.model_configs
    await unload(open_server, "first")
    assert not await registry.apply(configs)
    assert not await is_ready(open_server, "first")
    await registry.apply({"second": configs["second"]})
    assert list(await states(open_server)) == ["second"]
    # A name that comes back is a new model.
    await registry.apply(configs)
    assert await is_ready(open_server, "first")


async def test_a_load_goes_on_without_its_client(open_server: RunningServer) -> None:
    registry = open_server.server.registry
    await unload(open_server, "first")
    with structlog.testing.capture_logs() as logs:
        async with registry._changing:
            call = load(open_server, "first")
            await until(lambda: bool(registry._changing._waiters))
            call.cancel()
            await until(lambda: "CANCELLED" in {each.get("code") for each in logs})
    await until(lambda: bool(registry.model_ready("first")))


async def test_loads_and_unloads_take_turns(open_server: RunningServer) -> None:
    calls = [
        action(open_server, name)
        for _ in range(3)
        for name in ("first", "second")
        for action in (unload, load)
    ]
    await asyncio.gather(*calls, load(open_server, "first"), load(open_server, "second"))
    await load(open_server, "first")
    await load(open_server, "second")
    assert await states(open_server) == {"first": ("READY", ""), "second": ("READY", "")}
    answers = await responses(stub_of(open_server.channel), greedy(2), greedy(2, model="second"))
    assert not any(each.error_message for each in answers)


@pytest.mark.parametrize("change", [load, unload])
async def test_a_bad_change_is_refused(open_server: RunningServer, change: Any) -> None:
    code, text, _ = await failure(change(open_server, "none"))
    assert (code, text) == (
        grpc.StatusCode.NOT_FOUND,
        "no model named 'none'; loaded: first, second",
    )
    code, text, _ = await failure(change(open_server, "first", repository_name="other"))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text == "repository_name: is 'other', must be empty: there is one repository"
    parameters = {"config": pb.ModelRepositoryParameter(string_param="{}")}
    code, text, _ = await failure(change(open_server, "first", parameters=parameters))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "has the unsupported 'config'" in text
    assert await is_ready(open_server, "first")


@pytest.mark.parametrize("change", [load, unload])
async def test_without_the_setting_no_client_may_change_models(
    running: RunningServer, change: Any
) -> None:
    code, text, _ = await failure(change(running, "first"))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert text.endswith("may not load or unload models; that takes --model-control")
    assert await is_ready(running, "first")
