"""Cancelled, late and drained calls release their slots."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.support.engine_bench import SLOTS
from tests.support.running_server import PROMPT, RunningServer, config, failure, greedy

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub
from gpt2flow.server import Server


@pytest.mark.usefixtures("slow_decode")
async def test_a_cancelled_stream_frees_its_slots(running: RunningServer) -> None:
    request = pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(70))
    calls = [running.stub.GenerateStream(request) for _ in range(SLOTS)]
    for call in calls:
        await call.read()
    assert running.model.engine._engine._cache.free_slots == 0
    for call in calls:
        call.cancel()
    await running.wait_all_free()
    await asyncio.wait_for(running.model.engine.idle.wait(), 5)


@pytest.mark.usefixtures("slow_decode")
async def test_a_cancelled_unary_call_frees_its_slots(running: RunningServer) -> None:
    call = running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT, PROMPT], options=greedy(70)))
    await asyncio.sleep(0.1)
    assert running.model.engine._engine._cache.free_slots == SLOTS - 2
    call.cancel()
    await running.wait_all_free()


@pytest.mark.usefixtures("slow_decode")
async def test_a_deadline_ends_the_call_and_frees_its_slots(running: RunningServer) -> None:
    started = time.monotonic()
    code, _, _ = await failure(
        running.stub.Generate(
            pb.GenerateRequest(prompts=[PROMPT], options=greedy(70)), timeout=0.15
        )
    )
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started < 0.5
    await running.wait_all_free()


@pytest.mark.usefixtures("slow_decode")
async def test_a_time_limit_without_partial_results_is_an_error(running: RunningServer) -> None:
    options = greedy(70)
    options.stopping.time_limit_ms = 100
    code, _, _ = await failure(
        running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=options))
    )
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.usefixtures("slow_decode")
@pytest.mark.parametrize("by_deadline", [True, False])
async def test_a_time_limit_or_deadline_returns_the_partial_result(
    running: RunningServer, *, by_deadline: bool
) -> None:
    options = greedy(70)
    options.stopping.return_partial_on_time_limit = True
    if not by_deadline:
        options.stopping.time_limit_ms = 200
    response = await running.stub.Generate(
        pb.GenerateRequest(prompts=[PROMPT], options=options),
        timeout=0.3 if by_deadline else None,
    )
    [candidate] = response.results[0].candidates
    assert candidate.finish_reason == pb.FINISH_REASON_TIME_LIMIT
    assert candidate.text


@pytest.mark.parametrize("bad", [0, 2])
async def test_the_first_prompt_that_fails_ends_the_call(running: RunningServer, bad: int) -> None:
    """The other prompts are blocked before their next step."""
    engine: Any = running.model.engine._engine
    may_run, begin, decode = threading.Event(), engine._begin, engine._runner.decode

    def failing(task: Any) -> Any:
        if list(task.request.prompt) == [9, 9, 9]:
            raise RuntimeError("injected failure")
        return begin(task)

    def blocked(*args: Any) -> Any:
        assert may_run.wait(60)
        return decode(*args)

    engine._begin, engine._runner.decode = failing, blocked
    prompts = [PROMPT, PROMPT]
    prompts.insert(bad, pb.Prompt(tokens=pb.TokenIds(ids=[9, 9, 9])))
    call = running.stub.Generate(pb.GenerateRequest(prompts=prompts, options=greedy(70)))
    try:
        async with asyncio.timeout(20):
            code, _, _ = await failure(call)
        assert code == grpc.StatusCode.INTERNAL
        assert not running.model.engine._live
    finally:
        may_run.set()
    await running.wait_all_free()


# --- Shutdown -------------------------------------------------------------------------


@pytest.mark.usefixtures("slow_decode")
async def test_draining_finishes_running_requests_and_refuses_new_ones(bundle: Path) -> None:
    server = Server(config(bundle, drain_seconds=10))
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = InferenceServiceStub(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)
        accepted = stub.GenerateStream(pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(50)))
        messages = aiter(accepted)
        await anext(messages)
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0.05)
        code, _, _ = await failure(
            stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=greedy(3)))
        )
        assert code == grpc.StatusCode.UNAVAILABLE
        response = await health.Check(health_pb2.HealthCheckRequest(service="first"))
        assert response.status == health_pb2.HealthCheckResponse.NOT_SERVING
        rest = [message async for message in messages]
        assert rest[-1].end.result.usage.completion_tokens == 50
        await stopping


@pytest.mark.usefixtures("slow_decode")
async def test_draining_is_bounded_in_time(bundle: Path) -> None:
    server = Server(config(bundle, drain_seconds=0.1))
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = InferenceServiceStub(channel)
        call = stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=greedy(75)))
        await asyncio.sleep(0.05)
        await server.stop()
        code, _, _ = await failure(call)
        assert code == grpc.StatusCode.UNAVAILABLE
