"""Models are added, replaced and unloaded while the server runs."""

import asyncio
import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from tests.support.bundles import copy_bundle, copy_damaged_bundle
from tests.support.engine_bench import SLOTS
from tests.support.run_gate import closed_gate
from tests.support.running_server import PROMPT, RunningServer, failure, greedy
from tests.support.waiting import SECONDS, until

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server import BundleError, EngineConfig, ModelConfig
from gpt2flow.server.errors import DrainingError
from gpt2flow.server.models.loading import load_model
from gpt2flow.server.models.registry import Changes, Registry

pytestmark = pytest.mark.process

ENGINE = EngineConfig(threads=1, max_sequences=SLOTS, prefill_chunk=8)
LONG = pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(60))
SHORT = pb.GenerateRequest(prompts=[PROMPT], options=greedy(3))


def model(path: Path, **options: Any) -> ModelConfig:
    return ModelConfig(path=path, engine=ENGINE, **options)


async def wait_retired(registry: Registry) -> None:
    """Return when no model is being retired any more."""
    await until(lambda: not registry._retiring)


async def rest_of(call: Any) -> list[pb.GenerateStreamResponse]:
    """Return the messages that the stream has not read."""
    messages = []
    while (message := await call.read()) is not grpc.aio.EOF:
        messages.append(message)
    return messages


async def test_a_stream_on_a_replaced_model_finishes_on_it(
    running: RunningServer, tmp_path: Path
) -> None:
    old, bundle = running.model, running.model.bundle.directory
    with closed_gate(old.engine) as gate:
        call = running.stub.GenerateStream(LONG)
        await gate.begin(call)
        new = copy_bundle(bundle, tmp_path / "new", run="2")
        changes = await running.server.registry.apply({"first": model(new), "third": model(bundle)})
        assert changes == Changes(added=["third"], replaced=["first"], removed=["second"])
        assert old.engine._thread.is_alive()
        response = await running.stub.Generate(SHORT)
        assert response.fingerprint == running.model.bundle.fingerprint != old.bundle.fingerprint
    rest = await rest_of(call)
    assert rest[-1].end.fingerprint == old.bundle.fingerprint
    assert rest[-1].end.result.usage.completion_tokens == 60
    await wait_retired(running.server.registry)
    assert not old.engine._thread.is_alive()


async def test_a_stream_that_outlives_the_drain_time_of_its_model_is_ended(
    running: RunningServer,
) -> None:
    running.server.registry._drain_seconds = 0.05
    old, bundle = running.model, running.model.bundle.directory
    with closed_gate(old.engine) as gate:
        call = running.stub.GenerateStream(LONG)
        await gate.begin(call)
        await running.server.registry.apply({"other": model(bundle)})
        # The drain has ended, and the engine stops before its next run.
        await until(lambda: old.engine._stopping is not None)
    with pytest.raises(grpc.aio.AioRpcError, match="the model was unloaded") as caught:
        await rest_of(call)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    code, text, _ = await failure(running.stub.GetModel(pb.GetModelRequest(model="first")))
    assert (code, text) == (grpc.StatusCode.NOT_FOUND, "no model named 'first'; loaded: other")


async def test_an_unchanged_model_is_kept(running: RunningServer) -> None:
    bundle = running.model.bundle.directory
    await running.server.registry.apply({"first": model(bundle), "second": model(bundle)})
    first, second = running.server.registry.models
    changes = await running.server.registry.apply({"second": model(bundle), "first": model(bundle)})
    assert not changes
    assert running.server.registry.models == [second, first]
    more = ModelConfig(path=bundle, engine=EngineConfig(threads=1, max_sequences=SLOTS + 1))
    changes = await running.server.registry.apply({"second": more, "first": model(bundle)})
    assert changes.replaced == ["second"]
    assert running.model.limits.max_sequences == SLOTS + 1


@pytest.mark.parametrize("kind", ["damaged", "missing", "pinned"])
async def test_a_bad_model_leaves_all_models_unchanged(
    running: RunningServer, tmp_path: Path, kind: str
) -> None:
    registry, bundle = running.server.registry, running.model.bundle.directory
    before = registry.models
    bad, message = {
        "damaged": (model(tmp_path / "bad"), r"model\.onnx\.data does not match the hash"),
        "missing": (model(tmp_path / "nowhere"), "nowhere is not a directory"),
        "pinned": (model(bundle, fingerprint="0" * 64), "must have 0000"),
    }[kind]
    copy_damaged_bundle(bundle, tmp_path / "bad")
    with pytest.raises(BundleError, match=message):
        await registry.apply(
            {"first": model(copy_bundle(bundle, tmp_path / "new", run="2")), "x": bad}
        )
    assert registry.models == before
    assert await running.status("first") == HealthCheckResponse.SERVING
    code, _, _ = await failure(running.stub.GetModel(pb.GetModelRequest(model="x")))
    assert code == grpc.StatusCode.NOT_FOUND


async def test_an_unloaded_model_is_freed_completely(running: RunningServer) -> None:
    await running.stub.Generate(SHORT)
    constrained = greedy(20, constraint=pb.Constraint(regex="(ab){2}"))
    await running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=constrained))
    old = running.model
    runner: Any = old.engine.engine._runner
    parts = [runner, runner._session, old.engine, old.engine._thread, old.tokenizer, old.tasks]
    parts += [*runner._cache.values(), old.engine.engine.cache]
    dead = [weakref.ref(part) for part in parts]
    bundle = old.bundle.directory
    del old, runner, parts
    gc.disable()  # So much memory must be freed without a garbage collection.
    try:
        await running.server.registry.apply({"other": model(bundle)})
        await wait_retired(running.server.registry)
        await until(lambda: [reference() for reference in dead] == [None] * len(dead))
    finally:
        gc.enable()


async def test_memory_is_trimmed_after_the_last_old_model_is_freed(
    running: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = running.model.bundle.directory
    engines = [weakref.ref(each.engine) for each in running.server.registry.models]
    found: list[Any] = []
    trimmed = threading.Event()

    def trim() -> None:
        found.extend(reference() for reference in engines)
        trimmed.set()

    monkeypatch.setattr("gpt2flow.server.models.registry.trim", trim)
    gc.disable()
    try:
        await running.server.registry.apply({"other": model(bundle)})
        assert await asyncio.to_thread(trimmed.wait, SECONDS)
        assert found == [None, None]
    finally:
        gc.enable()


async def test_a_registry_without_a_model_refuses_requests(tmp_path: Path) -> None:
    registry = Registry(["first"], drain_seconds=0)
    with pytest.raises(BundleError):
        await registry.apply({"first": model(tmp_path / "nowhere")})
    assert registry.default == ""
    await registry.close()
    with pytest.raises(DrainingError):
        registry.lease(registry.default)


@pytest.fixture
def may_load(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Event without which no model finishes loading."""
    may_load = threading.Event()

    def waiting(*args: Any) -> Any:
        assert may_load.wait(SECONDS)
        return load_model(*args)

    monkeypatch.setattr("gpt2flow.server.models.registry.load_model", waiting)
    return may_load


async def test_health_follows_loading_and_unloading(
    running: RunningServer, may_load: threading.Event
) -> None:
    bundle = running.model.bundle.directory
    watch = running.health.Watch(HealthCheckRequest(service="new"))
    left = running.health.Watch(HealthCheckRequest(service="new"))
    for call in (watch, left):
        assert (await call.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
    left.cancel()
    applying = asyncio.create_task(running.server.registry.apply({"new": model(bundle)}))
    assert (await watch.read()).status == HealthCheckResponse.NOT_SERVING
    assert await running.status("") == HealthCheckResponse.SERVING
    request = pb.GenerateRequest(model="new", prompts=[PROMPT], options=greedy(3))
    code, text, _ = await failure(running.stub.Generate(request))
    assert (code, text) == (grpc.StatusCode.UNAVAILABLE, "model 'new' is loading")
    may_load.set()
    await applying
    assert (await watch.read()).status == HealthCheckResponse.SERVING
    assert (await running.stub.Generate(request)).model == "new"
    await running.server.registry.apply({"first": model(bundle)})
    assert (await watch.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.status("new")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    watch.cancel()


async def test_loading_does_not_block_running_streams(
    running: RunningServer, may_load: threading.Event, tmp_path: Path
) -> None:
    new = copy_bundle(running.model.bundle.directory, tmp_path / "new", run="2")
    call = running.stub.GenerateStream(LONG)
    await call.read()
    applying = asyncio.create_task(running.server.registry.apply({"first": model(new)}))
    rest = await rest_of(call)
    assert rest[-1].end.result.usage.completion_tokens == 60
    assert not applying.done()
    may_load.set()
    await applying
