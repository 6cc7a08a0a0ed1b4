"""Fair queue and threads for expensive work."""

import asyncio
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.waiting import until

from gpt2flow.server.errors import DrainingError, OverloadedError, TimeLimitError
from gpt2flow.server.work_pool import PENALTY_SECONDS, Job, WorkKind, WorkPool, WorkQueue

KIND = WorkKind(noun="constraint", done="compiled", queue="compile queue")


class ManualClockQueue(WorkQueue):
    """Queue whose clock tests set."""

    def __init__(self, workers: int = 2, capacity: int = 64) -> None:
        self.now = 0.0
        super().__init__(KIND, workers, capacity, lambda: self.now)

    def enter(self, caller: str, count: int = 1) -> list[Job]:
        """Queue `count` jobs of a caller and return them."""
        jobs = [Job(caller, asyncio.Future()) for _ in range(count)]
        for job in jobs:
            self.add(job)
        return jobs

    def dispatch(self) -> list[Job]:
        """Give each idle worker the next job and return these."""
        return list(iter(self.take, None))


def callers(jobs: list[Job]) -> list[str]:
    return [job.caller for job in jobs]


async def test_a_lone_caller_uses_all_workers_until_another_arrives() -> None:
    queue = ManualClockQueue()
    queue.enter("many", 9)
    first, second = queue.dispatch()
    assert queue.dispatch() == []
    queue.enter("one", 2)
    queue.end(first, 0.1, harmful=False)
    assert callers(queue.dispatch()) == ["one"]
    queue.end(second, 0.1, harmful=False)
    # Both callers have jobs left, so that each gets one worker.
    assert callers(queue.dispatch()) == ["many"]


async def test_a_caller_whose_job_did_harm_is_deprioritized() -> None:
    queue = ManualClockQueue()
    queue.enter("bad", 9)
    for job in queue.dispatch():
        queue.end(job, 2.0, harmful=True)
    [slow] = queue.dispatch()
    queue.enter("good", 5)
    for _ in range(5):
        [job] = queue.dispatch()
        assert job.caller == "good"
        queue.end(job, 0.1, harmful=False)
    assert queue.dispatch() == []
    queue.end(slow, 2.0, harmful=False)
    assert callers(queue.dispatch()) == ["bad"]
    queue.now = PENALTY_SECONDS
    assert callers(queue.dispatch()) == ["bad"]


@given(st.lists(st.sampled_from("abcd"), max_size=30), st.integers(0, 29))
def test_no_caller_is_served_twice_while_another_waits(arrivals: list[str], late: int) -> None:
    async def check() -> None:
        queue = ManualClockQueue(workers=1)
        waiting = {queue.enter(caller)[0]: Counter[str]() for caller in arrivals[:late]}
        for caller in [*arrivals[late:], *"." * len(arrivals)]:
            if caller != ".":
                waiting |= {queue.enter(caller)[0]: Counter()}
            if job := queue.take():
                del waiting[job]
                oldest = {each.caller: turns for each, turns in reversed(waiting.items())}
                for waiter, turns in oldest.items():
                    turns[job.caller] += waiter != job.caller
                    assert max(turns.values()) <= 1
                for each, turns in waiting.items():
                    if each.caller == job.caller:
                        turns.clear()
                queue.end(job, 0.1, harmful=False)
        assert not waiting

    asyncio.run(check())


async def test_a_full_queue_evicts_the_largest_holder_for_another_caller() -> None:
    queue = ManualClockQueue(capacity=3)
    queue.enter("many", 2)
    queue.dispatch()
    *_, last = queue.enter("many", 3)
    with pytest.raises(OverloadedError, match="3 constraints wait, limit 3"):
        queue.enter("many")
    queue.enter("one")
    assert isinstance(last.result.exception(), OverloadedError)
    with pytest.raises(OverloadedError):
        queue.enter("one", 2)


async def test_a_discarded_job_is_skipped() -> None:
    queue = ManualClockQueue(1)
    queue.enter("a")
    [first] = queue.dispatch()
    [gone], [other] = queue.enter("b"), queue.enter("c")
    queue.discard(gone)
    queue.discard(first)
    queue.end(first, 0.1, harmful=False)
    assert queue.dispatch() == [other]


async def test_a_job_that_cannot_start_in_time_is_refused_immediately() -> None:
    queue = ManualClockQueue()
    for job in queue.enter("a", 2):
        assert queue.take() is job
        queue.end(job, 2.0, harmful=False)
    queue.enter("a", 2)
    queue.dispatch()
    *_, last = queue.enter("a", 5)
    # The first of five costs nothing; four of 2 s on two workers, times OPTIMISM, are 2 s.
    queue.check_deadline(last, deadline=2.01)
    with pytest.raises(TimeLimitError, match=r"would wait 5.000 s to be compiled.*in 1.990 s"):
        queue.check_deadline(last, deadline=1.99)
    [other] = queue.enter("b")
    queue.check_deadline(other, deadline=0.01)


class Gate:
    """Work that runs until the test or its pool ends it."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.opened = threading.Event()
        self.abandoned = False

    def __call__(self, abandoned: threading.Event) -> str:
        self.started.set()
        while not self.opened.wait(0.01):
            if abandoned.is_set():
                self.abandoned = True
                raise RuntimeError("no one waits")
        return "done"


async def test_a_pool_returns_results_and_raises_errors() -> None:
    pool = WorkPool(KIND, workers=2, capacity=4)
    assert await pool.run(lambda _: 6 * 7, "a") == 42
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda _: 1 // 0, "a")
    pool.close()


async def test_no_more_jobs_than_workers_run_at_once() -> None:
    pool = WorkPool(KIND, workers=2, capacity=4)
    gates = [Gate() for _ in range(4)]
    running = [asyncio.create_task(pool.run(gate, f"caller {i}")) for i, gate in enumerate(gates)]
    await until(lambda: all(gate.started.is_set() for gate in gates[:2]))
    assert not any(gate.started.is_set() for gate in gates[2:])
    for gate in gates:
        gate.opened.set()
    assert await asyncio.gather(*running) == ["done"] * 4
    pool.close()


async def test_work_ends_when_its_caller_leaves() -> None:
    pool = WorkPool(KIND, workers=1, capacity=4)
    gate = Gate()
    task = asyncio.create_task(pool.run(gate, "a"))
    await until(gate.started.is_set)
    task.cancel()
    await until(lambda: gate.abandoned)
    assert await pool.run(lambda _: "next", "b") == "next"
    pool.close()


async def test_work_ends_at_its_deadline() -> None:
    pool = WorkPool(KIND, workers=1, capacity=4)
    gate = Gate()
    with pytest.raises(TimeLimitError, match="up before its constraint was compiled"):
        await pool.run(gate, "a", asyncio.get_running_loop().time() + 0.05)
    await until(lambda: gate.abandoned)
    pool.close()


async def test_closing_a_pool_ends_what_waits() -> None:
    pool = WorkPool(KIND, workers=1, capacity=4)
    gate = Gate()
    first = asyncio.create_task(pool.run(gate, "a"))
    await until(gate.started.is_set)
    second = asyncio.create_task(pool.run(lambda _: None, "a"))
    await asyncio.sleep(0)
    pool.close()
    with pytest.raises(DrainingError):
        await second
    gate.opened.set()
    assert await first == "done"
