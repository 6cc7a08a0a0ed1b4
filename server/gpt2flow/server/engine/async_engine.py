"""Asynchronous interface of an engine that runs in its own thread."""

import asyncio
import itertools
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Final

import structlog

from gpt2flow.server.engine.engine import Engine
from gpt2flow.server.engine.results import Event
from gpt2flow.server.engine.sequence import Request
from gpt2flow.server.engine.stats import EngineLoad, RunStats
from gpt2flow.server.engine.task import Task
from gpt2flow.server.errors import (
    BrokenModelError,
    DrainingError,
    EngineError,
    OverloadedError,
    ServerError,
)
from gpt2flow.server.fair_queue import largest_holder

# Retry delay of a refusal: before the first measurement, and its bounds after that.
_DEFAULT_RETRY_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = (0.1, 30.0)
# Runs that fail in a row before the model is reported as failing.
FAILING_RUNS: Final = 3
# Time between two probing runs of an idle engine whose last run failed.
_PROBE_SECONDS: Final = 1.0
# Largest random addition to the delay, as a share of it: clients refused at the same time must
# not return at the same time.
_JITTER = 0.5


@dataclass(frozen=True, slots=True)
class _Submit:
    tasks: Sequence[Task]


@dataclass(frozen=True, slots=True)
class _Abort:
    request_id: int


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


_Message = _Submit | _Abort | _Stop


@dataclass(slots=True)
class _LiveRequest:
    """Request that has not ended, with its unread events.

    Attributes:
        request: The request.
        received: Whether the engine's thread has received it.
        events: Events that the stream has not read.
    """

    request: Request
    received: bool = False
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)


class AsyncEngine:
    """Asynchronous interface of an engine.

    All methods are for the event loop's thread. onnxruntime releases the interpreter lock while
    the model runs. So the engine's thread does not block the event loop, which serves the
    clients.

    Attributes:
        idle: Event that is set while no request is unfinished.
        broken: Whether an internal error ended the thread; new requests raise `BrokenModelError`.
        failing: Whether the last `FAILING_RUNS` runs failed. Requests are tried all the same, and
            an idle engine makes probing runs, until a run succeeds.
    """

    def __init__(self, name: str, engine: Engine, *, slots: int, max_queued: int) -> None:
        """Prepare the thread; `start` starts it.

        Args:
            name: Name of the model, for the log and for errors.
            engine: Engine, which the thread owns from now on.
            slots: Number of sequences that run at the same time.
            max_queued: Number of requests that may wait for slots.
        """
        self._engine = engine
        self._slots = slots
        self._max_queued = max_queued
        self._name = name
        self._inbox: SimpleQueue[_Message] = SimpleQueue()
        self._live: dict[int, _LiveRequest] = {}
        self._ids = itertools.count()
        self._log = structlog.get_logger().bind(model=name)
        self._thread = threading.Thread(target=self._run_loop, name=f"engine-{name}", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_health: Callable[[], None] = lambda: None
        self._stopping: str | None = None
        self.broken = False
        self.failing = False
        self.idle = asyncio.Event()
        self.idle.set()

    def start(self, on_health: Callable[[], None] = lambda: None) -> None:
        """Start the engine's thread.

        Args:
            on_health: Called in the event loop after `healthy` has changed.
        """
        self._loop = asyncio.get_running_loop()
        self._on_health = on_health
        self._thread.start()

    async def stop(self, why: str = "the server is shutting down") -> None:
        """End the thread; unfinished requests end with `DrainingError` and this reason."""
        self._stopping = why
        self._inbox.put(_Stop())
        if self._loop is not None:
            await asyncio.to_thread(self._thread.join)

    @property
    def healthy(self) -> bool:
        """True unless the engine is broken or failing."""
        return not (self.broken or self.failing)

    @property
    def engine(self) -> Engine:
        """Synchronous engine, which the engine's thread owns."""
        return self._engine

    @property
    def load(self) -> EngineLoad:
        """Load of the engine."""
        return self._engine.load

    @property
    def runs(self) -> RunStats:
        """Statistics of the model's runs."""
        return self._engine.runs

    def next_id(self) -> int:
        """Return the id of a new request; ids rise with arrival."""
        return next(self._ids)

    @contextmanager
    def submit(self, tasks: Sequence[Task]) -> Iterator[list[AsyncIterator[Event]]]:
        """Queue requests, all of them or none, in a context.

        Leaving the context aborts the requests that have not ended.

        Args:
            tasks: Requests of one caller with one priority, at least one.

        Yields:
            An iterator over the events of each request, which ends after the last event.

        Raises:
            OverloadedError: The queue has no room for them.
            DrainingError: The engine is stopping.
            BrokenModelError: An internal error has ended the engine.
        """
        if self._stopping:
            raise DrainingError(self._stopping)
        if self.broken:
            raise BrokenModelError(self._name)
        for displaced in self._displaced_by(tasks):
            text = f"queue full: {displaced.caller!r} holds most of it and makes room for others"
            error = self._overloaded(1, text)
            self._deliver([Event(displaced.id, error)])
            self._inbox.put(_Abort(displaced.id))
        for task in tasks:
            self._live[task.request.id] = _LiveRequest(task.request)
        self.idle.clear()
        queues = [self._live[task.request.id].events for task in tasks]
        self._inbox.put(_Submit(tasks))
        try:
            yield [_until_last(queue) for queue in queues]
        finally:
            for task in tasks:
                if task.request.id in self._live:
                    self._discard(task.request.id)
                    self._inbox.put(_Abort(task.request.id))

    def _displaced_by(self, tasks: Sequence[Task]) -> list[Request]:
        """Return the waiting requests that make room for new ones.

        In a full queue, the caller that holds most of it loses its requests of the lowest
        priority, among equals the latest. A request of a higher priority than the new ones is
        never displaced, nor is one that has had slots already.

        Raises:
            OverloadedError: The new requests are refused.
        """
        waiting = self._waiting_with(tasks)
        excess = len(waiting) - self._max_queued
        newcomer = tasks[0].request
        held = Counter(request.caller for request in waiting)
        displaced: list[Request] = []
        for _ in range(excess):
            caller = largest_holder(held, newcomer.caller)
            last = min(
                (each for each in waiting if each.caller == caller and each not in displaced),
                key=lambda each: (each.priority, -each.id),
                default=newcomer,
            )
            begun = last.slots or last.preemptions
            if caller is None or begun or last.priority > newcomer.priority:
                limit = self._max_queued
                found = f"queue full: {len(waiting)} requests would wait, limit {limit}"
                raise self._overloaded(excess, found)
            displaced.append(last)
            held[caller] -= 1
        return displaced

    def _waiting_with(self, tasks: Sequence[Task]) -> list[Request]:
        """Return the requests that would wait for slots if new ones joined.

        Higher priorities get slots first; the requests that they preempt wait as well.
        """
        live = [*(each.request for each in self._live.values()), *(task.request for task in tasks)]
        live.sort(key=lambda each: -each.priority)
        taken = itertools.accumulate(each.slots_needed for each in live)
        return [each for each, slots in zip(live, taken, strict=True) if slots > self._slots]

    def _overloaded(self, excess: int, message: str) -> OverloadedError:
        """Return the refusal of a request, `excess` requests beyond the limit."""
        low, high = _RETRY_SECONDS
        interval = self._engine.release_interval
        measured = min(max(excess * interval, low), high)
        delay = measured if interval else _DEFAULT_RETRY_SECONDS
        jitter = random.uniform(1, 1 + _JITTER)
        return OverloadedError(message, retry_after_seconds=delay * jitter)

    def _deliver(self, events: Iterable[Event]) -> None:
        try:
            for event in events:
                if live := self._live.get(event.request_id):
                    live.events.put_nowait(event)
                    if event.last:
                        self._discard(event.request_id)
        except Exception as error:  # noqa: BLE001 - readers of the other events must not hang
            self._break(error)

    def _end(self, request_ids: Iterable[int], error: ServerError) -> None:
        self._deliver([Event(request_id, error) for request_id in request_ids])

    def _break(self, cause: BaseException) -> None:
        """End the thread, if it still runs, and all requests."""
        if self.broken:
            return
        self.broken = True
        self._log.error("engine_broken", exc_info=cause)
        self._inbox.put(_Stop())
        for request_id in list(self._live):
            self._end([request_id], BrokenModelError(self._name))
        self._on_health()

    def _discard(self, request_id: int) -> None:
        del self._live[request_id]
        if not self._live:
            self.idle.set()

    def _run_loop(self) -> None:
        """Handle messages and step until stopped; sleep while idle."""
        try:
            while self._run_once():
                pass
            self._engine.clear()
            self._call_loop(self._end, list(self._live), DrainingError(self._stopping or ""))
        except BaseException as error:  # noqa: BLE001 - clients must not hang
            if self._loop and not self._loop.is_closed():  # Otherwise no client is left.
                self._call_loop(self._break, error)

    def _run_once(self) -> bool:
        """Handle all messages and step once; return False if stopped.

        The thread survives any failure: all requests end, and the engine is cleared.
        """
        events: list[Event] = []
        try:
            if not self._read_inbox():
                return False
            if self._engine.busy:
                events = self._engine.step()
            else:
                self._engine.probe()
        except BaseException as error:  # noqa: BLE001 - a panic in a library is no Exception
            self._log.error("engine_failed", exc_info=error)
            # The step's events are lost, so requests that the engine has ended fail as well.
            received = [number for number, live in list(self._live.items()) if live.received]
            self._engine.clear()
            self._engine.runs.fail()
            self._call_loop(self._end, received, _failure(error))
        else:
            if events:
                self._call_loop(self._deliver, events)
        failing = self._engine.runs.failures_in_row >= FAILING_RUNS
        if failing != self.failing:
            self._report(failing=failing)
        return True

    def _report(self, *, failing: bool) -> None:
        """Report that the model is failing, or that it runs again."""
        self.failing = failing
        if failing:
            self._log.error("model_failing", failed_runs=self._engine.runs.failures_in_row)
        else:
            self._log.info("model_recovered", failed_runs=self._engine.runs.failures)
        self._call_loop(self._on_health)

    def _read_inbox(self) -> bool:
        """Handle all messages; return False if stopped.

        While the engine is idle, this waits for a message, or until a probing run is due.
        """
        while True:
            busy = self._engine.busy
            try:
                message = self._inbox.get(not busy, None if busy else self._probe_seconds())
            except Empty:
                return True
            match message:
                case _Submit(tasks):
                    self._add(tasks)
                case _Abort(request_id):
                    self._abort(request_id)
                case _Stop():
                    return False

    def _probe_seconds(self) -> float | None:
        """Return the time until a probing run; None is never."""
        failures = self._engine.runs.failures_in_row
        # At once after one failure: its request may have been the cause.
        return None if failures == 0 else 0.0 if failures == 1 else _PROBE_SECONDS

    def _add(self, tasks: Sequence[Task]) -> None:
        """Queue requests; one that cannot be queued ends alone."""
        for task in tasks:
            if live := self._live.get(task.request.id):
                live.received = True
        for task in tasks:
            try:
                self._engine.add(task)
            except Exception as error:  # noqa: BLE001 - any failure ends this request alone
                self._log.error("request_not_queued", exc_info=error)
                self._call_loop(self._end, [task.request.id], _failure(error))
                self._abort(task.request.id)
                self._engine.check()

    def _abort(self, request_id: int) -> None:
        """Drop a request; if that fails, it runs to its end unread."""
        try:
            self._engine.abort(request_id)
        except Exception as error:  # noqa: BLE001 - other requests go on
            self._log.error("request_not_aborted", exc_info=error)
            self._engine.check()

    def _call_loop(self, callback: Callable[..., None], *arguments: object) -> None:
        """Schedule a call in the event loop; calls keep their order."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(callback, *arguments)


def _failure(cause: BaseException) -> EngineError:
    error = EngineError("the engine failed")
    error.__cause__ = cause
    return error


async def _until_last(events: asyncio.Queue[Event]) -> AsyncIterator[Event]:
    while True:
        event = await events.get()
        yield event
        if event.last:
            return
