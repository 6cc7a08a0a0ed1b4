"""Bounded queue of turns, in order within a session."""

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable

from gpt2flow.agent.http.requests import Message, RequestError
from gpt2flow.agent.report import TurnReport

Answered = TurnReport | RequestError

# Weight of the last turn in the average from which the retry delay is estimated.
_LAST_WEIGHT = 0.2
_UNFINISHED = "the process stops before this turn has ended; send the message again with id {id!r}"


class TurnQueue:
    """Turns that run or wait, for one event loop.

    A turn belongs to no request: it goes on when the caller leaves, and a request that repeats its
    message waits for it too. The turns of a session run one after the other, so that a session
    holds one thread at most.

    Args:
        handle: Blocking function that handles a message and raises nothing.
        max_turns: Most turns at a time.
        max_queued: Most turns that wait.
    """

    def __init__(
        self, handle: Callable[[Message], Answered], *, max_turns: int, max_queued: int
    ) -> None:
        self._handle = handle
        self._max_turns = max_turns
        self._max_queued = max_queued
        self._slots = asyncio.Semaphore(max_turns)
        self._turns: dict[Message, asyncio.Task[Answered]] = {}
        self._last: dict[str, asyncio.Task[Answered]] = {}
        self._seconds = 1.0
        self._is_closed = False
        self.running = 0

    def __len__(self) -> int:
        """Return the number of turns that run or wait."""
        return len(self._turns)

    @property
    def waiting(self) -> int:
        """Number of turns that have not begun."""
        return len(self._turns) - self.running

    @property
    def is_closed(self) -> bool:
        """Whether new turns are refused."""
        return self._is_closed

    def check_open(self) -> None:
        """Raise `RequestError` once new turns are refused."""
        if self._is_closed:
            raise RequestError(
                503, None, "the process is stopping; send the request again", retry_after=1
            )

    def submit(self, message: Message) -> "asyncio.Task[Answered]":
        """Return the turn of a message, which another request may have started.

        Raises:
            RequestError: The queue is full or closed.
        """
        self.check_open()
        if (turn := self._turns.get(message)) is not None:
            return turn
        if len(self._turns) >= self._max_turns + self._max_queued:
            seconds = math.ceil(len(self._turns) / self._max_turns * self._seconds)
            raise RequestError(
                503,
                None,
                f"queue full: {self.waiting} turns waiting, limit {self._max_queued}; retry in"
                f" {seconds} s",
                retry_after=seconds,
            )
        turn = asyncio.create_task(self._run(message, self._last.get(message.session)))
        self._turns[message] = self._last[message.session] = turn
        turn.add_done_callback(lambda ended: self._forget(message, ended))
        return turn

    def close(self) -> None:
        """Refuse new turns."""
        self._is_closed = True

    async def finished(self) -> None:
        """Wait until all turns have ended."""
        while self._turns:
            await asyncio.wait(list(self._turns.values()))
            # A turn is removed by its callback.
            await asyncio.sleep(0)

    def abandon(self) -> int:
        """Give up all turns, and return their number.

        Requests wait for them no longer. Those that have not begun never will, and those that run
        go on in their threads.
        """
        turns = list(self._turns.values())
        for turn in turns:
            turn.cancel()
        return len(turns)

    async def _run(self, message: Message, earlier: "asyncio.Task[Answered] | None") -> Answered:
        try:
            if earlier is not None:
                await asyncio.wait({earlier})
            async with self._slots:
                return await self._run_in_thread(message)
        except asyncio.CancelledError:
            return RequestError(503, None, _UNFINISHED.format(id=message.id), retry_after=5)

    async def _run_in_thread(self, message: Message) -> Answered:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answered] = loop.create_future()

        def work() -> None:
            answer = self._handle(message)
            # The loop may have ended before an abandoned turn.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_set_result, answered, answer)

        start = time.monotonic()
        self.running += 1
        try:
            # A daemon: the threads of an executor would hold up the end of the process.
            threading.Thread(target=work, name="turn", daemon=True).start()
            return await answered
        finally:
            self.running -= 1
            self._seconds += _LAST_WEIGHT * (time.monotonic() - start - self._seconds)

    def _forget(self, message: Message, ended: "asyncio.Task[Answered]") -> None:
        del self._turns[message]
        if self._last[message.session] is ended:
            del self._last[message.session]


def _set_result(future: "asyncio.Future[Answered]", answer: Answered) -> None:
    if not future.done():
        future.set_result(answer)
