"""Async engine: submission, limits, preemption and shutdown across threads."""

import asyncio
import time
from typing import Any

import pytest
from tests.support.counting_engine import VOCABULARY, OpenEngine
from tests.support.run_gate import closed_gate
from tests.support.waiting import until

from gpt2flow.server.engine.results import GenerationResult
from gpt2flow.server.engine.scheduler import Scheduler
from gpt2flow.server.errors import DrainingError, EngineError, OverloadedError


async def test_a_request_finishes(open_engine: OpenEngine) -> None:
    harness = open_engine()
    [event] = await harness.run(harness.task(5))
    assert isinstance(event.content, GenerationResult)
    assert event.content.candidates[0].token_ids == (5, 6, 7, 8, 9)


async def test_many_requests_share_the_slots(open_engine: OpenEngine) -> None:
    harness = open_engine(slots=2, queued=8)
    results = await asyncio.gather(*(harness.run(harness.task(6)) for _ in range(10)))
    assert all(isinstance(events[-1].content, GenerationResult) for events in results)
    # Two requests share each decode step, so that there are fewer than six for each request.
    assert harness.runner.runs < 10 * 6
    await harness.wait_all_free()


async def test_leaving_the_context_early_frees_the_slot(open_engine: OpenEngine) -> None:
    harness = open_engine(seconds=0.01)
    with harness.engine.submit([harness.task(900, stream=True)]) as [events]:
        await anext(events)
    assert harness.engine.idle.is_set()
    await harness.wait_all_free()
    runs = harness.runner.runs
    await asyncio.sleep(0.05)
    assert harness.runner.runs <= runs + 1


async def test_cancelling_a_listener_frees_the_slot(open_engine: OpenEngine) -> None:
    harness = open_engine(seconds=0.01)
    listener = asyncio.create_task(harness.run(harness.task(900)))
    await until(lambda: harness.cache.free_slots == 1)
    listener.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listener
    await harness.wait_all_free()


async def test_the_queue_is_bounded(open_engine: OpenEngine) -> None:
    harness = open_engine(slots=2, queued=3)
    with (
        harness.engine.submit([harness.task(20) for _ in range(5)]),
        pytest.raises(OverloadedError) as caught,
        harness.engine.submit([harness.task()]),
    ):
        pass
    assert caught.value.retry_after_seconds > 0


async def test_a_request_counts_for_all_the_slots_it_needs(open_engine: OpenEngine) -> None:
    harness = open_engine(slots=4, queued=0)
    with harness.engine.submit([harness.task(20, n=3)]):
        with pytest.raises(OverloadedError), harness.engine.submit([harness.task(20, n=2)]):
            pass
        with harness.engine.submit([harness.task(20)]):
            pass


async def test_preempted_requests_count_as_waiting(open_engine: OpenEngine) -> None:
    harness = open_engine(slots=2, queued=2)
    with (
        harness.engine.submit([harness.task(50), harness.task(50)]),
        harness.engine.submit([harness.task(50, n=2, priority=1)]),
        pytest.raises(OverloadedError, match="3 requests would wait, limit 2"),
        harness.engine.submit([harness.task()]),
    ):
        pass


async def test_a_preempted_request_finishes(open_engine: OpenEngine) -> None:
    harness = open_engine(slots=1)
    with closed_gate(harness.engine) as gate:
        low = asyncio.create_task(harness.run(harness.task(100)))
        await until(lambda: harness.cache.free_slots == 0)
        urgent = asyncio.create_task(harness.run(harness.task(3, priority=1)))
        await gate.until_unfinished(2)
        # Enough for the one, and too few for the other.
        gate.allow(20)
        [high] = await urgent
        assert not low.done()
    [event] = await low
    for each, count in ((high, 3), (event, 100)):
        assert isinstance(each.content, GenerationResult)
        expected = tuple((5 + at) % VOCABULARY for at in range(count))
        assert each.content.candidates[0].token_ids == expected
    await harness.wait_all_free()


async def test_several_requests_are_accepted_together_or_not_at_all(
    open_engine: OpenEngine,
) -> None:
    harness = open_engine(slots=1, queued=1)
    with pytest.raises(OverloadedError), harness.engine.submit([harness.task() for _ in range(3)]):
        pass
    assert harness.engine.idle.is_set()
    assert len(await harness.run(harness.task())) == 1


async def test_an_idle_engine_uses_no_cpu(open_engine: OpenEngine) -> None:
    harness = open_engine()
    await harness.run(harness.task(3))
    await harness.engine.idle.wait()
    runs = harness.runner.runs
    # Other threads of this process may be busy at times, but an engine that polls always is.
    while await cpu_share(0.3) > 0.1:
        pass
    assert harness.runner.runs == runs


async def cpu_share(seconds: float) -> float:
    """Return the share of a processor that this waiting process uses."""
    began, busy = time.monotonic(), time.process_time()
    await asyncio.sleep(seconds)
    return (time.process_time() - busy) / (time.monotonic() - began)


async def test_stopping_ends_running_requests(open_engine: OpenEngine) -> None:
    harness = open_engine(seconds=0.1)
    listener = asyncio.create_task(harness.run(harness.task(900)))
    await until(lambda: harness.cache.free_slots == 1)
    await harness.engine.stop()
    events = await listener
    assert isinstance(events[-1].content, DrainingError)
    with pytest.raises(DrainingError), harness.engine.submit([harness.task()]):
        pass


async def test_a_failing_step_ends_its_requests_but_not_the_thread(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = open_engine()
    schedule = Scheduler.schedule

    def fail_once(_scheduler: Scheduler) -> Any:
        monkeypatch.setattr(Scheduler, "schedule", schedule)
        raise RuntimeError("injected failure")

    monkeypatch.setattr(Scheduler, "schedule", fail_once)
    events = await harness.run(harness.task())
    assert isinstance(events[-1].content, EngineError)
    assert isinstance((await harness.run(harness.task()))[-1].content, GenerationResult)
