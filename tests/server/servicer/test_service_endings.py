"""Cancelled, late and drained calls release their slots."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse
from tests.support.engine_bench import SLOTS
from tests.support.run_gate import closed_gate, skip_time
from tests.support.running_server import (
    PROMPT,
    RunningServer,
    failure,
    greedy,
    server_config,
    serving,
)
from tests.support.waiting import until

from gpt2flow.inference.v1 import inference_pb2 as pb

pytestmark = pytest.mark.process

LONG = pb.GenerateRequest(prompts=[PROMPT], options=greedy(70))
LONG_STREAM = pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(70))
HOUR = 3600.0


async def test_a_cancelled_stream_frees_its_slots(running: RunningServer) -> None:
    with closed_gate(running.engine) as gate:
        calls = [running.stub.GenerateStream(LONG_STREAM) for _ in range(SLOTS)]
        await gate.begin(*calls)
        assert running.free_slots == 0
        for call in calls:
            call.cancel()
        await gate.until_unfinished(0)
    await running.wait_all_free()
    assert running.engine.idle.is_set()


async def test_a_cancelled_unary_call_frees_its_slots(running: RunningServer) -> None:
    with closed_gate(running.engine) as gate:
        request = pb.GenerateRequest(prompts=[PROMPT, PROMPT], options=greedy(70))
        call = running.stub.Generate(request)
        await until(lambda: running.free_slots == SLOTS - 2)
        call.cancel()
        await gate.until_unfinished(0)
    await running.wait_all_free()


async def test_a_deadline_ends_the_call_and_frees_its_slots(running: RunningServer) -> None:
    with closed_gate(running.engine) as gate:
        code, _, _ = await failure(running.stub.Generate(LONG, timeout=1.0))
        assert code == grpc.StatusCode.DEADLINE_EXCEEDED
        await gate.until_unfinished(0)
    await running.wait_all_free()


async def test_a_time_limit_without_partial_results_is_an_error(running: RunningServer) -> None:
    options = greedy(70)
    options.stopping.time_limit_ms = int(HOUR * 1000)
    with closed_gate(running.engine) as gate:
        call = running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=options))
        await gate.until_unfinished(1)
        skip_time(running.engine, HOUR)
    code, _, _ = await failure(call)
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("by_deadline", [True, False])
async def test_a_time_limit_or_deadline_returns_the_partial_result(
    running: RunningServer, *, by_deadline: bool
) -> None:
    options = greedy(70)
    options.stopping.return_partial_on_time_limit = True
    if not by_deadline:
        options.stopping.time_limit_ms = int(HOUR * 1000)
    with closed_gate(running.engine) as gate:
        call = running.stub.Generate(
            pb.GenerateRequest(prompts=[PROMPT], options=options),
            timeout=HOUR if by_deadline else None,
        )
        await gate.until_unfinished(1)
        await gate.pass_runs(8)
        skip_time(running.engine, HOUR)
    response = await call
    [candidate] = response.results[0].candidates
    assert candidate.finish_reason == pb.FINISH_REASON_TIME_LIMIT
    assert candidate.text


@pytest.mark.parametrize("bad", [0, 2])
async def test_the_first_prompt_that_fails_ends_the_call(running: RunningServer, bad: int) -> None:
    """The other prompts are held before their next step."""
    engine: Any = running.engine.engine
    begin = engine._begin

    def failing(task: Any) -> Any:
        if list(task.request.prompt) == [9, 9, 9]:
            raise RuntimeError("injected failure")
        return begin(task)

    engine._begin = failing
    prompts = [PROMPT, PROMPT]
    prompts.insert(bad, pb.Prompt(tokens=pb.TokenIds(ids=[9, 9, 9])))
    with closed_gate(running.engine) as gate:
        call = running.stub.Generate(pb.GenerateRequest(prompts=prompts, options=greedy(70)))
        await gate.until_unfinished(3)
        # The failure is reported at the end of a step.
        gate.allow(1)
        code, _, _ = await failure(call)
        assert code == grpc.StatusCode.INTERNAL
        assert not running.engine._live
    await running.wait_all_free()


# --- Shutdown -------------------------------------------------------------------------


async def test_draining_finishes_running_requests_and_refuses_new_ones(bundle: Path) -> None:
    async with serving(server_config(bundle, drain_seconds=HOUR)) as running:
        with closed_gate(running.engine) as gate:
            accepted = running.stub.GenerateStream(LONG_STREAM)
            await gate.begin(accepted)
            stopping = asyncio.create_task(running.server.stop())
            await until(lambda: running.server.registry.draining)
            code, _, _ = await failure(running.stub.Generate(LONG))
            assert code == grpc.StatusCode.UNAVAILABLE
            assert await running.status("first") == HealthCheckResponse.NOT_SERVING
        while (message := await accepted.read()).WhichOneof("event") != "end":
            pass
        assert message.end.result.usage.completion_tokens == 70
        await stopping


async def test_draining_is_bounded_in_time(bundle: Path) -> None:
    async with serving(server_config(bundle, drain_seconds=0.1)) as running:
        with closed_gate(running.engine) as gate:
            call = running.stub.Generate(LONG)
            await gate.until_unfinished(1)
            stopping = asyncio.create_task(running.server.stop())
            # The drain has ended, and the engine stops before its next run.
            await until(lambda: running.engine._stopping is not None)
        code, _, _ = await failure(call)
        assert code == grpc.StatusCode.UNAVAILABLE
        await stopping
