"""Failures inside an engine: every request ends, and health reports the state."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from structlog.testing import capture_logs
from tests.support.counting_engine import CountingEngine
from tests.support.engine_bench import SLOTS
from tests.support.run_gate import RunGate, closed_gate
from tests.support.running_server import PROMPT, RunningServer, failure, greedy, server_config
from tests.support.waiting import SECONDS

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server.errors import BrokenModelError, DrainingError
from gpt2flow.server.models.reload import Reloader

pytestmark = pytest.mark.process

SHORT = pb.GenerateRequest(prompts=[PROMPT], options=greedy(5))
LONG = pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(70))
ON_SECOND = pb.GenerateStreamRequest(model="second", prompt=PROMPT, options=greedy(70))
# Prompt that marks the request whose handling fails.
MARKED = [7, 7, 7]
BAD = pb.GenerateRequest(
    prompts=[pb.Prompt(tokens=pb.TokenIds(ids=MARKED))], options=greedy(5, priority=1)
)


class Panic(BaseException):
    """Exception of the kind that a panic in a Rust extension raises."""


def engine(running: RunningServer) -> Any:
    return running.engine.engine


def fail_once(target: Any, method: str, *, when: Callable[..., bool], error: BaseException) -> None:
    """Make a method raise on the first call whose arguments satisfy `when`."""
    original = getattr(target, method)

    def broken(*args: Any) -> Any:
        if when(*args):
            setattr(target, method, original)
            raise error
        return original(*args)

    setattr(target, method, broken)


def always(*_args: Any) -> bool:
    return True


@asynccontextmanager
async def started(running: RunningServer, count: int) -> AsyncIterator[tuple[RunGate, list[Any]]]:
    """Hold `count` streams after their first messages, until the block ends."""
    with closed_gate(running.engine) as gate:
        streams = [running.stub.GenerateStream(LONG) for _ in range(count)]
        await gate.begin(*streams)
        yield gate, streams


async def tokens(call: Any) -> int:
    """Read a stream to its end and return its number of tokens."""
    while (message := await call.read()) is not grpc.aio.EOF:
        last = message
    return int(last.end.result.usage.completion_tokens)


async def assert_serves_as_before(running: RunningServer) -> None:
    """Check slots, health and thread: the engine has survived undamaged."""
    await running.wait_all_free()
    options = pb.GenerationOptions(
        sampling=pb.SamplingParams(n=SLOTS, seed=1),
        stopping=pb.StoppingCriteria(max_new_tokens=3, ignore_eos=True),
    )
    response = await running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=options))
    assert len(response.results[0].candidates) == SLOTS
    assert running.engine._thread.is_alive()
    assert await running.status("first") == HealthCheckResponse.SERVING


async def test_a_request_that_cannot_be_queued_fails_alone(running: RunningServer) -> None:
    async with started(running, 1) as (gate, [stream]):
        error = RuntimeError("injected failure")
        fail_once(
            engine(running)._scheduler,
            "add",
            when=lambda request: list(request.prompt) == MARKED,
            error=error,
        )
        bad = running.stub.Generate(BAD)
        await gate.until_unfinished(2)
    code, text, _ = await failure(bad)
    assert code == grpc.StatusCode.INTERNAL
    assert "injected" not in text
    assert await tokens(stream) == 70
    await assert_serves_as_before(running)


async def test_a_partly_queued_request_fails_alone(running: RunningServer) -> None:
    async with started(running, 1) as (gate, [stream]):
        fail_once(engine(running)._forecast, "record_arrival", when=always, error=RuntimeError())
        bad = running.stub.Generate(BAD)
        await gate.until_unfinished(2)
    code, _, _ = await failure(bad)
    assert code == grpc.StatusCode.INTERNAL
    assert await tokens(stream) == 70
    await assert_serves_as_before(running)


async def test_a_failing_abort_disturbs_no_other_request(running: RunningServer) -> None:
    with capture_logs() as log:
        async with started(running, 2) as (gate, [stream, left]):
            error = RuntimeError("injected failure")
            fail_once(engine(running)._scheduler, "remove", when=always, error=error)
            left.cancel()
            await gate.until_unfinished(1)
        assert await tokens(stream) == 70
        await running.wait_all_free()
    assert [line["event"] for line in log if line["log_level"] == "error"] == [
        "request_not_aborted"
    ]
    await assert_serves_as_before(running)


async def test_a_lost_slot_is_recovered(running: RunningServer) -> None:
    async with started(running, 2) as (gate, [stream, left]):
        error = RuntimeError("injected failure")
        fail_once(engine(running).cache, "free", when=always, error=error)
        left.cancel()
        await gate.until_unfinished(1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await tokens(stream)
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    await assert_serves_as_before(running)


@pytest.mark.parametrize("error", [RuntimeError("injected failure"), Panic()])
async def test_a_request_that_finished_in_a_failing_step_still_ends(
    running: RunningServer, error: BaseException
) -> None:
    step = engine(running).step

    def failing() -> Any:
        events = step()
        if any(event.last for event in events):
            engine(running).step = step
            raise error
        return events

    engine(running).step = failing
    code, _, _ = await failure(running.stub.Generate(SHORT))
    assert code == grpc.StatusCode.INTERNAL
    await assert_serves_as_before(running)


async def test_a_broken_engine_is_not_served_until_it_is_reloaded(
    running: RunningServer, bundle: Path
) -> None:
    watch = running.health.Watch(HealthCheckRequest(service="first"))
    assert (await watch.read()).status == HealthCheckResponse.SERVING
    other = running.stub.GenerateStream(ON_SECOND)
    broken = running.model
    cause = RuntimeError("injected failure")
    with capture_logs() as log:
        async with started(running, 3) as (_, streams):
            fail_once(engine(running).cache, "clear", when=always, error=cause)
            fail_once(engine(running)._scheduler, "schedule", when=always, error=RuntimeError())
        for stream in streams:
            with pytest.raises(grpc.aio.AioRpcError, match="'first' has failed") as caught:
                await tokens(stream)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert (await watch.read()).status == HealthCheckResponse.NOT_SERVING
        code, text, _ = await failure(running.stub.Generate(SHORT))
        expected = "model 'first' has failed and must be loaded again"
        assert (code, text) == (grpc.StatusCode.UNAVAILABLE, expected)
    [line] = [line for line in log if line["event"] == "engine_broken"]
    assert (line["log_level"], line["model"], line["exc_info"]) == ("error", "first", cause)
    assert await running.status("") == HealthCheckResponse.NOT_SERVING
    assert await running.status("second") == HealthCheckResponse.SERVING
    assert await tokens(other) == 70
    with pytest.raises(BrokenModelError), broken.engine.submit([]):
        pass
    settings = server_config(bundle)
    reloader = Reloader(running.server.registry, settings, read=lambda: settings, file=None)
    watching = asyncio.create_task(reloader.run())
    reloader.trigger()
    assert (await watch.read()).status == HealthCheckResponse.SERVING
    watch.cancel()
    watching.cancel()
    assert running.model is not broken
    await assert_serves_as_before(running)
    assert await running.status("") == HealthCheckResponse.SERVING


async def test_events_that_cannot_be_delivered_end_the_engine(running: RunningServer) -> None:
    async with started(running, 3) as (_, streams):
        [live, *_] = running.engine._live.values()
        fail_once(live.events, "put_nowait", when=always, error=RuntimeError("injected failure"))
    for stream in streams:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await tokens(stream)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert await running.status("first") == HealthCheckResponse.NOT_SERVING
    assert running.engine.idle.is_set()
    await asyncio.to_thread(running.engine._thread.join, SECONDS)
    assert not running.engine._thread.is_alive()


def test_an_engine_whose_event_loop_is_gone_stops(
    tokenizer: Any, grammars: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    unhandled: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", unhandled.append)
    harness = CountingEngine(tokenizer, grammars, slots=2, queued=4, seconds=0.005)
    submitted = harness.engine.submit([harness.task(200, stream=True)])

    async def leave() -> None:
        harness.engine.start()
        submitted.__enter__()

    asyncio.run(leave())
    thread = harness.engine._thread
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert not unhandled


async def test_an_engine_that_never_started_stops(tokenizer: Any, grammars: Any) -> None:
    harness = CountingEngine(tokenizer, grammars, slots=2, queued=4, seconds=0.005)
    await harness.engine.stop()
    with pytest.raises(DrainingError), harness.engine.submit([harness.task()]):
        pass
