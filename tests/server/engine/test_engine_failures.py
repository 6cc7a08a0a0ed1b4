"""Whatever breaks inside an engine, nobody waits for ever, and health tells the truth."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from structlog.testing import capture_logs
from tests.server.conftest import SLOTS
from tests.support.counting_engine import Desk
from tests.support.running_server import PROMPT, Running, config, failure, greedy, serving_as

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server.errors import BrokenModelError
from gpt2flow.server.models.reload import Reloader

SHORT = pb.GenerateRequest(prompts=[PROMPT], options=greedy(5))
LONG = pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(70))
ON_SECOND = pb.GenerateStreamRequest(model="second", prompt=PROMPT, options=greedy(70))
# A prompt that no other request of these tests has.
MARKED = [7, 7, 7]
BAD = pb.GenerateRequest(
    prompts=[pb.Prompt(tokens=pb.TokenIds(ids=MARKED))], options=greedy(5, priority=1)
)


class Panic(BaseException):
    """What a library in Rust raises is no Exception either."""


@pytest.fixture
async def running(bundle: Path) -> AsyncIterator[Running]:
    """One model whose decode steps take a while."""
    async with serving_as(config(bundle)) as running:
        runner: Any = running.model.engine._engine._runner
        decode = runner.decode

        def slowly(*args: Any) -> Any:
            threading.Event().wait(0.005)
            return decode(*args)

        runner.decode = slowly
        yield running


def engine(running: Running) -> Any:
    return running.model.engine._engine


def breaks(thing: Any, method: str, *, when: Callable[..., bool], error: BaseException) -> None:
    """Make a method of an object raise once, when its arguments are so."""
    works = getattr(thing, method)

    def broken(*args: Any) -> Any:
        if when(*args):
            setattr(thing, method, works)
            raise error
        return works(*args)

    setattr(thing, method, broken)


def always(*_args: Any) -> bool:
    return True


async def started(running: Running) -> Any:
    """Return a stream of which something has come."""
    call = running.stub.GenerateStream(LONG)
    await call.read()
    return call


async def tokens(call: Any) -> int:
    """Return how many tokens a stream had that was started."""
    while (message := await call.read()) is not grpc.aio.EOF:
        last = message
    return int(last.end.result.usage.completion_tokens)


async def status(running: Running, name: str) -> HealthCheckResponse.ServingStatus:
    stub: Any = health_pb2_grpc.HealthStub(running.channel)
    response = await stub.Check(health_pb2.HealthCheckRequest(service=name))
    return response.status


async def serves_as_before(running: Running) -> None:
    """All slots can be used at once, and the engine's thread is the same one."""
    await running.all_free()
    options = pb.GenerationOptions(
        sampling=pb.SamplingParams(n=SLOTS, seed=1),
        stopping=pb.StoppingCriteria(max_new_tokens=3, ignore_eos=True),
    )
    response = await running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=options))
    assert len(response.results[0].candidates) == SLOTS
    assert running.model.engine._thread.is_alive()
    assert await status(running, "first") == HealthCheckResponse.SERVING


async def test_a_request_that_cannot_be_queued_ends_alone(running: Running) -> None:
    stream = await started(running)
    error = RuntimeError("no such luck")
    breaks(
        engine(running)._scheduler,
        "add",
        when=lambda request: list(request.prompt) == MARKED,
        error=error,
    )
    code, text, _ = await failure(running.stub.Generate(BAD))
    assert code == grpc.StatusCode.INTERNAL
    assert "luck" not in text
    assert await tokens(stream) == 70
    await serves_as_before(running)


async def test_a_request_that_was_queued_by_half_ends_alone(running: Running) -> None:
    stream = await started(running)
    breaks(engine(running)._forecast, "note_arrival", when=always, error=RuntimeError())
    code, _, _ = await failure(running.stub.Generate(BAD))
    assert code == grpc.StatusCode.INTERNAL
    assert await tokens(stream) == 70
    await serves_as_before(running)


async def test_a_request_that_cannot_be_dropped_disturbs_nobody(running: Running) -> None:
    stream, left = await started(running), await started(running)
    breaks(engine(running)._scheduler, "remove", when=always, error=RuntimeError("no such luck"))
    with capture_logs() as log:
        left.cancel()
        assert await tokens(stream) == 70
        await running.all_free()
    assert [line["event"] for line in log if line["log_level"] == "error"] == [
        "request_not_aborted"
    ]
    await serves_as_before(running)


async def test_a_slot_that_was_lost_is_found_again(running: Running) -> None:
    stream, left = await started(running), await started(running)
    breaks(engine(running)._cache, "free", when=always, error=RuntimeError("no such luck"))
    left.cancel()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tokens(stream)
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    await serves_as_before(running)


@pytest.mark.parametrize("error", [RuntimeError("no such luck"), Panic()])
async def test_what_ended_in_a_step_that_failed_is_told_too(
    running: Running, error: BaseException
) -> None:
    step = engine(running).step

    def failing() -> Any:
        events = step()
        if any(event.last for event in events):
            engine(running).step = step
            raise error
        return events

    engine(running).step = failing
    async with asyncio.timeout(20):
        code, _, _ = await failure(running.stub.Generate(SHORT))
    assert code == grpc.StatusCode.INTERNAL
    await serves_as_before(running)


async def test_an_engine_beyond_repair_is_not_served_until_it_is_loaded_again(
    running: Running, bundle: Path
) -> None:
    health: Any = health_pb2_grpc.HealthStub(running.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service="first"))
    assert (await watch.read()).status == HealthCheckResponse.SERVING
    streams = [await started(running) for _ in range(3)]
    other = running.stub.GenerateStream(ON_SECOND)
    broken = running.model
    cause = RuntimeError("no such luck")
    breaks(engine(running)._cache, "clear", when=always, error=cause)
    with capture_logs() as log:
        breaks(engine(running)._scheduler, "schedule", when=always, error=RuntimeError())
        for stream in streams:
            with pytest.raises(grpc.aio.AioRpcError, match="'first' has failed") as caught:
                await tokens(stream)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert (await watch.read()).status == HealthCheckResponse.NOT_SERVING
        code, text, _ = await failure(running.stub.Generate(SHORT))
        says = "model 'first' has failed and must be loaded again"
        assert (code, text) == (grpc.StatusCode.UNAVAILABLE, says)
    [line] = [line for line in log if line["event"] == "engine_broken"]
    assert (line["log_level"], line["model"], line["exc_info"]) == ("error", "first", cause)
    assert await status(running, "") == HealthCheckResponse.NOT_SERVING
    assert await status(running, "second") == HealthCheckResponse.SERVING
    assert await tokens(other) == 70
    with pytest.raises(BrokenModelError), broken.engine.submit([]):
        pass
    settings = config(bundle)
    reloader = Reloader(running.server.registry, settings, read=lambda: settings, file=None)
    watching = asyncio.create_task(reloader.run())
    reloader.ask()
    assert (await watch.read()).status == HealthCheckResponse.SERVING
    watch.cancel()
    watching.cancel()
    assert running.model is not broken
    await serves_as_before(running)
    assert await status(running, "") == HealthCheckResponse.SERVING


async def test_events_that_cannot_be_delivered_end_the_engine(running: Running) -> None:
    [unlucky, *others] = [await started(running) for _ in range(3)]
    [live, *_] = running.model.engine._live.values()
    breaks(live.events, "put_nowait", when=always, error=RuntimeError("no such luck"))
    for stream in (unlucky, *others):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await tokens(stream)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert await status(running, "first") == HealthCheckResponse.NOT_SERVING
    assert running.model.engine.idle.is_set()
    await asyncio.to_thread(running.model.engine._thread.join, 20)
    assert not running.model.engine._thread.is_alive()


def test_an_engine_without_a_loop_ends(
    tokenizer: Any, grammars: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    unhandled: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", unhandled.append)
    desk = Desk(tokenizer, grammars, slots=2, queued=4, seconds=0.005)
    asked = desk.engine.submit([desk.task(200, stream=True)])

    async def leave() -> None:
        desk.engine.start()
        asked.__enter__()

    asyncio.run(leave())
    thread = desk.engine._thread
    thread.join(20)
    assert not thread.is_alive()
    assert not unhandled
