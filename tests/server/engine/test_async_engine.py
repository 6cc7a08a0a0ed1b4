"""The engine's thread and the event loop understand each other."""

import asyncio
import time
from typing import Any

import pytest
from tests.support.counting_engine import VOCABULARY, OpenDesk

from gpt2flow.server.engine.results import GenerationResult
from gpt2flow.server.engine.scheduler import Scheduler
from gpt2flow.server.errors import DrainingError, EngineError, OverloadedError


async def test_a_request_runs_to_its_end(open_desk: OpenDesk) -> None:
    desk = open_desk()
    [event] = await desk.run(desk.task(5))
    assert isinstance(event.content, GenerationResult)
    assert event.content.candidates[0].token_ids == (5, 6, 7, 8, 9)


async def test_many_requests_share_the_slots(open_desk: OpenDesk) -> None:
    desk = open_desk(slots=2, queued=8)
    results = await asyncio.gather(*(desk.run(desk.task(6)) for _ in range(10)))
    assert all(isinstance(events[-1].content, GenerationResult) for events in results)
    # Two at a time: three decode steps for each pair would be impossible alone.
    assert desk.runner.runs < 10 * 6
    await desk.all_free()


async def test_leaving_early_frees_the_slot(open_desk: OpenDesk) -> None:
    desk = open_desk(seconds=0.01)
    with desk.engine.submit([desk.task(900, stream=True)]) as [events]:
        await anext(events)
    assert desk.engine.idle.is_set()
    await desk.all_free()
    runs = desk.runner.runs
    await asyncio.sleep(0.05)
    assert desk.runner.runs <= runs + 1


async def test_cancelling_a_listener_frees_the_slot(open_desk: OpenDesk) -> None:
    desk = open_desk(seconds=0.01)
    listener = asyncio.create_task(desk.run(desk.task(900)))
    await asyncio.sleep(0.05)
    assert desk.cache.free_slots == 1
    listener.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listener
    await desk.all_free()


async def test_as_many_wait_as_may(open_desk: OpenDesk) -> None:
    desk = open_desk(slots=2, queued=3)
    with (
        desk.engine.submit([desk.task(20) for _ in range(5)]),
        pytest.raises(OverloadedError) as caught,
        desk.engine.submit([desk.task()]),
    ):
        pass
    assert caught.value.retry_after_seconds > 0


async def test_wide_requests_count_as_what_they_take(open_desk: OpenDesk) -> None:
    desk = open_desk(slots=4, queued=0)
    with desk.engine.submit([desk.task(20, n=3)]):
        with pytest.raises(OverloadedError), desk.engine.submit([desk.task(20, n=2)]):
            pass
        with desk.engine.submit([desk.task(20)]):
            pass


async def test_what_is_preempted_counts_as_waiting(open_desk: OpenDesk) -> None:
    desk = open_desk(slots=2, queued=2)
    with (
        desk.engine.submit([desk.task(50), desk.task(50)]),
        desk.engine.submit([desk.task(50, n=2, priority=1)]),
        pytest.raises(OverloadedError, match="3 requests would wait, limit 2"),
        desk.engine.submit([desk.task()]),
    ):
        pass


async def test_a_preempted_request_runs_to_its_end(open_desk: OpenDesk) -> None:
    desk = open_desk(slots=1)
    low = asyncio.create_task(desk.run(desk.task(100)))
    while desk.cache.free_slots:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)
    [high] = await desk.run(desk.task(3, priority=1))
    assert not low.done()
    [event] = await low
    for each, count in ((high, 3), (event, 100)):
        assert isinstance(each.content, GenerationResult)
        expected = tuple((5 + at) % VOCABULARY for at in range(count))
        assert each.content.candidates[0].token_ids == expected
    await desk.all_free()


async def test_several_requests_are_taken_together_or_not_at_all(open_desk: OpenDesk) -> None:
    desk = open_desk(slots=1, queued=1)
    with pytest.raises(OverloadedError), desk.engine.submit([desk.task() for _ in range(3)]):
        pass
    assert desk.engine.idle.is_set()
    assert len(await desk.run(desk.task())) == 1


async def test_idle_is_idle(open_desk: OpenDesk) -> None:
    desk = open_desk()
    await desk.run(desk.task(3))
    await desk.engine.idle.wait()
    runs, busy = desk.runner.runs, time.process_time()
    await asyncio.sleep(0.3)
    assert desk.runner.runs == runs
    assert time.process_time() - busy < 0.1


async def test_stopping_ends_what_runs(open_desk: OpenDesk) -> None:
    desk = open_desk()
    listener = asyncio.create_task(desk.run(desk.task(900)))
    await asyncio.sleep(0.02)
    await desk.engine.stop()
    events = await listener
    assert isinstance(events[-1].content, DrainingError)
    with pytest.raises(DrainingError), desk.engine.submit([desk.task()]):
        pass


async def test_a_failing_step_ends_the_requests_and_the_thread_lives_on(
    open_desk: OpenDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = open_desk()
    schedule = Scheduler.schedule

    def fail_once(_scheduler: Scheduler) -> Any:
        monkeypatch.setattr(Scheduler, "schedule", schedule)
        raise RuntimeError("no such luck")

    monkeypatch.setattr(Scheduler, "schedule", fail_once)
    events = await desk.run(desk.task())
    assert isinstance(events[-1].content, EngineError)
    assert isinstance((await desk.run(desk.task()))[-1].content, GenerationResult)
