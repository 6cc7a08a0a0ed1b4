"""Threads for expensive work, behind a fair and bounded queue."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from gpt2flow.server.engine.forecast import OPTIMISM, Average
from gpt2flow.server.errors import DrainingError, OverloadedError, TimeLimitError
from gpt2flow.server.fair_queue import FairQueue, largest_holder

# Seconds for which a caller is deprioritized after its work did harm.
PENALTY_SECONDS: Final = 60.0

# Least retry delay of a refusal.
_RETRY_SECONDS: Final = 0.1

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class WorkKind:
    """Words for the work of a pool, in errors.

    Attributes:
        noun: What is worked on, such as "constraint".
        done: What is done to it, such as "compiled".
        queue: Name of the queue, such as "compile queue".
    """

    noun: str
    done: str
    queue: str


@dataclass(eq=False, slots=True)
class Job:
    """Work that waits for a thread, or runs in one.

    Attributes:
        caller: Name of the caller.
        result: Future of the result; leaving the queue cancels it.
        work: Function that does it, given `abandoned`.
        abandoned: Set when no one waits for the result any more.
        harmful: Whether a result deprioritizes the caller.
    """

    caller: str
    result: asyncio.Future[Any]
    work: Callable[[threading.Event], Any] = lambda _: None
    harmful: Callable[[Any], bool] = lambda _: False
    abandoned: threading.Event = field(default_factory=threading.Event)


class WorkQueue:
    """Fair queue in front of a few workers. For one thread.

    Each caller has one job run before any has a second at the same time; then callers are served
    round-robin.

    A caller whose job did harm, such as killing its worker, is served after all others for
    `PENALTY_SECONDS`. Together such callers leave one worker to the others.
    """

    def __init__(
        self,
        kind: WorkKind,
        workers: int,
        capacity: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start empty.

        Args:
            kind: Words for the work.
            workers: Number of jobs at the same time.
            capacity: Number of jobs that may wait for a worker.
            clock: Source of the time, in seconds.
        """
        self._kind = kind
        self._workers = workers
        self._capacity = capacity
        self._clock = clock
        self._waiting: FairQueue[Job] = FairQueue()
        self._running: Counter[str] = Counter()
        self._penalties: dict[str, float] = {}  # Ends of penalties, in their order.
        self._seconds = Average()

    def add(self, job: Job) -> None:
        """Add a job.

        When the queue is full, the caller that holds most of it loses its latest job.

        Raises:
            OverloadedError: That is the caller of this job.
        """
        if len(self._waiting) >= self._capacity:
            self._make_room(job.caller)
        self._waiting.add(job)

    def discard(self, job: Job) -> None:
        """Remove a job that still waits."""
        if job in self._waiting:
            self._waiting.remove(job)

    def take(self) -> Job | None:
        """Remove and return the next job, if a worker is free."""
        if self._running.total() >= self._workers:
            return None
        penalized = self._penalized()
        busy = sum(self._running[caller] for caller in penalized)
        for job in self._order():
            if job.caller in penalized and busy >= max(self._workers - 1, 1):
                continue
            self._waiting.take(job)
            self._running[job.caller] += 1
            return job
        return None

    def end(self, job: Job, seconds: float, *, harmful: bool) -> None:
        """Record the end of a job, and its duration."""
        self._running -= Counter([job.caller])
        self._seconds.add(seconds)
        if harmful:
            self._penalties.pop(job.caller, None)
            self._penalties[job.caller] = self._clock() + PENALTY_SECONDS

    def clear(self) -> list[Job]:
        """Remove and return all jobs that wait."""
        waiting, self._waiting = self._waiting, FairQueue()
        return list(waiting)

    def check_deadline(self, job: Job, deadline: float) -> None:
        """Check that a job can start in time, as `Forecast` does.

        Raises:
            TimeLimitError: It cannot.
        """
        if job not in self._waiting:
            return
        missing = self._order().index(job) + 1 - (self._workers - self._running.total())
        each = self._seconds.value / self._workers
        remaining = deadline - self._clock()
        if OPTIMISM * (missing - 1) * each > remaining:
            raise TimeLimitError(
                f"the {self._kind.noun} would wait {missing * each:.3f} s to be "
                f"{self._kind.done}, the time of the request is up in {remaining:.3f} s"
            )

    def _make_room(self, newcomer: str) -> None:
        held = Counter([newcomer, *(each.caller for each in self._waiting)])
        caller = largest_holder(held, newcomer)
        if caller is None:
            raise self._overloaded(
                f"{len(self._waiting)} {self._kind.noun}s wait, limit {self._capacity}"
            )
        displaced = [each for each in self._waiting if each.caller == caller][-1]
        self._waiting.remove(displaced)
        if not displaced.result.done():
            text = f"{caller!r} holds most of it and makes room for others"
            displaced.result.set_exception(self._overloaded(text))

    def _overloaded(self, text: str) -> OverloadedError:
        delay = max(self._seconds.value / self._workers, _RETRY_SECONDS)
        return OverloadedError(f"{self._kind.queue} full: {text}", retry_after_seconds=delay)

    def _order(self) -> list[Job]:
        """Return the waiting jobs in the order of their turns."""
        penalized = self._penalized()
        # A job that runs has used a round up.
        in_turn = self._waiting.in_turn(self._waiting, self._running)
        return sorted(in_turn, key=lambda job: job.caller in penalized)

    def _penalized(self) -> set[str]:
        """Return the penalized callers, after dropping penalties that have ended."""
        now = self._clock()
        while self._penalties and next(iter(self._penalties.values())) <= now:
            del self._penalties[next(iter(self._penalties))]
        return set(self._penalties)


class WorkPool:
    """Threads that run the jobs of a queue.

    For the event loop's thread.
    """

    def __init__(self, kind: WorkKind, workers: int, capacity: int) -> None:
        """Prepare the threads; each starts when it is needed.

        Args:
            kind: Words for the work.
            workers: Number of jobs at the same time.
            capacity: Number of jobs that may wait.
        """
        self._kind = kind
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix=kind.noun)
        self.queue = WorkQueue(kind, workers, capacity)

    async def run(
        self,
        work: Callable[[threading.Event], _T],
        caller: str,
        deadline: float | None = None,
        *,
        allow_partial: bool = False,
        harmful: Callable[[_T], bool] = lambda _: False,
    ) -> _T:
        """Run a function in a thread, and return its result.

        Its event is set when the caller has left, or the time is up.

        Args:
            work: The function; it may take long.
            caller: Name of the caller.
            deadline: Deadline of the request, on the event loop's clock.
            allow_partial: Whether to wait even if the work is not expected to start in time.
            harmful: Whether a result deprioritizes the caller.

        Raises:
            OverloadedError: The queue is full, and this caller holds most of it.
            TimeLimitError: The deadline passes before the end, or is expected to.
        """
        job = Job(caller, asyncio.get_running_loop().create_future(), work, harmful)
        self.queue.add(job)
        try:
            self._start()
            if deadline is not None and not allow_partial:
                self.queue.check_deadline(job, deadline)
            async with asyncio.timeout_at(deadline):
                result: _T = await job.result
                return result
        except TimeoutError as error:
            raise TimeLimitError(
                f"the time of the request was up before its {self._kind.noun} was {self._kind.done}"
            ) from error
        finally:
            job.abandoned.set()
            self.queue.discard(job)

    def submit(self, work: Callable[[], object]) -> None:
        """Run a function outside of the queue, such as a preparation."""
        self._threads.submit(work)

    def close(self) -> None:
        """End the jobs that wait; those that run go on."""
        for job in self.queue.clear():
            _resolve(job, error=DrainingError("the model is shutting down"))
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        """Start the next jobs, one for each free worker."""
        loop = asyncio.get_running_loop()
        while job := self.queue.take():
            running = loop.run_in_executor(self._threads, job.work, job.abandoned)
            running.add_done_callback(partial(self._end, job, time.monotonic()))

    def _end(self, job: Job, began: float, running: "asyncio.Future[Any]") -> None:
        if running.cancelled():  # By `close`.
            _resolve(job, error=DrainingError("the model is shutting down"))
            return
        error = running.exception()
        harmful = error is None and job.harmful(running.result())
        self.queue.end(job, time.monotonic() - began, harmful=harmful)
        if error is None:
            _resolve(job, running.result())
        else:
            _resolve(job, error=error)
        self._start()


def _resolve(job: Job, result: object = None, error: BaseException | None = None) -> None:
    """Resolve the future of a job, unless its client has left."""
    if job.result.done():
        return
    if error is None:
        job.result.set_result(result)
    else:
        job.result.set_exception(error)
