"""Runs an engine in a thread of its own, and carries its events into the event loop."""

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

# What a refused client is told to wait: before anything was measured, at least, and at most.
UNKNOWN_RETRY_SECONDS: Final = 1.0
RETRY_SECONDS: Final = (0.1, 30.0)
# Up to this share more, so that those who were refused together do not come back together.
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
class _Live:
    """A request that has not ended, with the events that nobody has read.

    Attributes:
        taken: Whether the thread has it.
    """

    request: Request
    taken: bool = False
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)


class AsyncEngine:
    """The engine as the event loop sees it: all methods are for the loop's thread.

    onnxruntime lets go of the interpreter while the model runs, so one engine
    thread leaves the loop free to talk to clients.

    Attributes:
        idle: Set while no request is unfinished.
        broken: Whether a defect ended the thread; requests end with `BrokenModelError` then.
    """

    def __init__(self, name: str, engine: Engine, *, slots: int, max_queued: int) -> None:
        """Prepare the thread; `start` starts it.

        Args:
            name: Of the model, for the log.
            engine: Owned by the thread from now on.
            slots: Sequences that run at the same time.
            max_queued: Requests that may wait for slots.
        """
        self._engine = engine
        self._slots = slots
        self._max_queued = max_queued
        self._name = name
        self._inbox: SimpleQueue[_Message] = SimpleQueue()
        self._live: dict[int, _Live] = {}
        self._ids = itertools.count()
        self._log = structlog.get_logger().bind(model=name)
        self._thread = threading.Thread(target=self._work, name=f"engine-{name}", daemon=True)
        self._stopping: str | None = None
        self.broken = False
        self.idle = asyncio.Event()
        self.idle.set()

    def start(self, on_broken: Callable[[], None] = lambda: None) -> None:
        """Start the engine's thread; the loop calls `on_broken` when a defect has ended it."""
        self._loop = asyncio.get_running_loop()
        self._on_broken = on_broken
        self._thread.start()

    async def stop(self, why: str = "the server is shutting down") -> None:
        """End the thread; requests that still run end with `DrainingError` and this reason."""
        self._stopping = why
        self._inbox.put(_Stop())
        await asyncio.to_thread(self._thread.join)

    @property
    def load(self) -> EngineLoad:
        """How busy the engine is."""
        return self._engine.load

    @property
    def runs(self) -> RunStats:
        """What its runs of the model took."""
        return self._engine.runs

    def next_id(self) -> int:
        """Return the id of a new request; ids rise in the order of arrival."""
        return next(self._ids)

    @contextmanager
    def submit(self, tasks: Sequence[Task]) -> Iterator[list[AsyncIterator[Event]]]:
        """Queue requests, all of them or none; those that have not ended on exit are aborted.

        Returns:
            A context with the events of each request; the last event ends them.

        Raises:
            OverloadedError: More would wait than may.
            DrainingError: The engine ends.
            BrokenModelError: A defect has ended it.
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
            self._live[task.request.id] = _Live(task.request)
        self.idle.clear()
        queues = [self._live[task.request.id].events for task in tasks]
        self._inbox.put(_Submit(tasks))
        try:
            yield [_until_last(queue) for queue in queues]
        finally:
            for task in tasks:
                if task.request.id in self._live:
                    self._forget(task.request.id)
                    self._inbox.put(_Abort(task.request.id))

    def _displaced_by(self, tasks: Sequence[Task]) -> list[Request]:
        """Return the waiting requests that make room for new ones in a full queue.

        The caller that holds most of the queue gives up its lowest and latest requests, unless
        they asked for a higher priority. Requests that had slots already are never displaced.

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
            began = last.slots or last.preemptions
            if caller is None or began or last.priority > newcomer.priority:
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
        """Return the refusal of one of so many requests too many."""
        low, high = RETRY_SECONDS
        measured = min(max(excess * self._engine.slot_seconds, low), high)
        delay = measured if self._engine.slot_seconds else UNKNOWN_RETRY_SECONDS
        jitter = random.uniform(1, 1 + _JITTER)
        return OverloadedError(message, retry_after_seconds=delay * jitter)

    def _deliver(self, events: Iterable[Event]) -> None:
        try:
            for event in events:
                if live := self._live.get(event.request_id):
                    live.events.put_nowait(event)
                    if event.last:
                        self._forget(event.request_id)
        except Exception as error:  # noqa: BLE001 - whoever waits for the rest must be told
            self._break(error)

    def _end(self, request_ids: Iterable[int], error: ServerError) -> None:
        self._deliver([Event(request_id, error) for request_id in request_ids])

    def _break(self, cause: BaseException) -> None:
        """End for good: every request with an error, and the thread, if it still runs."""
        if self.broken:
            return
        self.broken = True
        self._log.error("engine_broken", exc_info=cause)
        self._inbox.put(_Stop())
        for request_id in list(self._live):
            self._end([request_id], BrokenModelError(self._name))
        self._on_broken()

    def _forget(self, request_id: int) -> None:
        del self._live[request_id]
        if not self._live:
            self.idle.set()

    def _work(self) -> None:
        """The thread: takes messages, steps, sends events; sleeps when there is nothing to do."""
        try:
            while self._turn():
                pass
            self._engine.clear()
            self._call_loop(self._end, list(self._live), DrainingError(self._stopping or ""))
        except BaseException as error:  # noqa: BLE001 - nobody else would learn of it
            if not self._loop.is_closed():  # Else nobody is left who waits.
                self._call_loop(self._break, error)

    def _turn(self) -> bool:
        """Handle messages and steps once; returns whether to go on.

        Whatever fails, the thread lives on: all requests end, and the engine starts afresh.
        """
        try:
            if not self._read_inbox():
                return False
            events = self._engine.step()
        except BaseException as error:  # noqa: BLE001 - a panic in a library is no Exception
            self._log.error("engine_failed", exc_info=error)
            # Not only those that the engine knows of: events of the step are lost.
            taken = [number for number, live in list(self._live.items()) if live.taken]
            self._engine.clear()
            self._call_loop(self._end, taken, _failure(error))
        else:
            if events:
                self._call_loop(self._deliver, events)
        return True

    def _read_inbox(self) -> bool:
        """Handle all messages, and waits for one while idle; returns whether to go on."""
        while True:
            try:
                message = self._inbox.get(block=not self._engine.busy)
            except Empty:
                return True
            match message:
                case _Submit(tasks):
                    self._add(tasks)
                case _Abort(request_id):
                    self._abort(request_id)
                case _Stop():
                    return False

    def _add(self, tasks: Sequence[Task]) -> None:
        """Queue requests; one that cannot be queued ends alone."""
        for task in tasks:
            if live := self._live.get(task.request.id):
                live.taken = True
        for task in tasks:
            try:
                self._engine.add(task)
            except Exception as error:  # noqa: BLE001 - whatever it is, the request ends with it
                self._log.error("request_not_queued", exc_info=error)
                self._call_loop(self._end, [task.request.id], _failure(error))
                self._abort(task.request.id)
                self._engine.check()

    def _abort(self, request_id: int) -> None:
        """Drop a request; if it cannot be dropped, it runs to its end, unheard."""
        try:
            self._engine.abort(request_id)
        except Exception as error:  # noqa: BLE001 - no other request is to suffer
            self._log.error("request_not_aborted", exc_info=error)
            self._engine.check()

    def _call_loop(self, callback: Callable[..., None], *arguments: object) -> None:
        """Has the loop call a method; what is told first comes first."""
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
