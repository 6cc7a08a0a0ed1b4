"""Queue of constraints that wait to be compiled in a sandbox."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gpt2flow.server.engine.forecast import OPTIMISM, Average
from gpt2flow.server.errors import OverloadedError, TimeLimitError
from gpt2flow.server.fair_queue import FairQueue, largest_holder
from gpt2flow.server.params import ConstraintParams

# Seconds for which a caller is deprioritized after its constraint killed a worker.
PENALTY_SECONDS: Final = 60.0

# Least retry delay of a refusal.
_RETRY_SECONDS: Final = 0.1


@dataclass(eq=False, slots=True)
class CompileRequest:
    """Constraint that waits to be compiled, or is being compiled.

    Attributes:
        params: The constraint.
        caller: Name of the caller.
        done: Future that ends with the compilation; leaving the queue cancels it.
    """

    params: ConstraintParams
    caller: str
    done: asyncio.Future[None]


class CompileQueue:
    """Fair queue in front of a few sandbox workers. For one thread.

    Each caller has one constraint compiled before any has a second at the same time; then
    callers are served round-robin.

    A caller whose constraint killed its worker, by time or by memory, is served after all others
    for `PENALTY_SECONDS`. Together such callers leave one worker to the others.
    """

    def __init__(
        self, workers: int, capacity: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start empty.

        Args:
            workers: Number of compilations at the same time.
            capacity: Number of constraints that may wait for a worker.
            clock: Source of the time, in seconds.
        """
        self._workers = workers
        self._capacity = capacity
        self._clock = clock
        self._waiting: FairQueue[CompileRequest] = FairQueue()
        self._running: Counter[str] = Counter()
        self._penalties: dict[str, float] = {}  # Ends of penalties, in their order.
        self._seconds = Average()

    def add(self, request: CompileRequest) -> None:
        """Add a constraint.

        When the queue is full, the caller that holds most of it loses its latest constraint.

        Raises:
            OverloadedError: That is the caller of this constraint.
        """
        if len(self._waiting) >= self._capacity:
            self._make_room(request.caller)
        self._waiting.add(request)

    def discard(self, request: CompileRequest) -> None:
        """Remove a constraint that still waits."""
        if request in self._waiting:
            self._waiting.remove(request)

    def take(self) -> CompileRequest | None:
        """Remove and return the next constraint, if a worker is free."""
        if self._running.total() >= self._workers:
            return None
        penalized = self._penalized()
        busy = sum(self._running[caller] for caller in penalized)
        for request in self._order():
            if request.caller in penalized and busy >= max(self._workers - 1, 1):
                continue
            self._waiting.take(request)
            self._running[request.caller] += 1
            return request
        return None

    def end(self, request: CompileRequest, seconds: float, *, killed_worker: bool) -> None:
        """Record the end of a compilation, and its duration."""
        self._running -= Counter([request.caller])
        self._seconds.add(seconds)
        if killed_worker:
            self._penalties.pop(request.caller, None)
            self._penalties[request.caller] = self._clock() + PENALTY_SECONDS

    def clear(self) -> list[CompileRequest]:
        """Remove and return all constraints that wait."""
        waiting, self._waiting = self._waiting, FairQueue()
        return list(waiting)

    def check_deadline(self, request: CompileRequest, deadline: float) -> None:
        """Check that compilation can start in time, as `Forecast` does for requests.

        Raises:
            TimeLimitError: It cannot.
        """
        if request not in self._waiting:
            return
        missing = self._order().index(request) + 1 - (self._workers - self._running.total())
        each = self._seconds.value / self._workers
        remaining = deadline - self._clock()
        if OPTIMISM * (missing - 1) * each > remaining:
            raise TimeLimitError(
                f"the constraint would wait {missing * each:.3f} s to be compiled, the time of "
                f"the request is up in {remaining:.3f} s"
            )

    def _make_room(self, newcomer: str) -> None:
        held = Counter([newcomer, *(each.caller for each in self._waiting)])
        caller = largest_holder(held, newcomer)
        if caller is None:
            raise self._overloaded(
                f"compile queue full: {len(self._waiting)} constraints wait, limit {self._capacity}"
            )
        displaced = [each for each in self._waiting if each.caller == caller][-1]
        self._waiting.remove(displaced)
        if not displaced.done.done():
            text = f"compile queue full: {caller!r} holds most of it and makes room for others"
            displaced.done.set_exception(self._overloaded(text))

    def _overloaded(self, text: str) -> OverloadedError:
        delay = max(self._seconds.value / self._workers, _RETRY_SECONDS)
        return OverloadedError(text, retry_after_seconds=delay)

    def _order(self) -> list[CompileRequest]:
        """Return the waiting constraints in the order of their turns."""
        penalized = self._penalized()
        # A constraint that runs has used a round up.
        in_turn = self._waiting.in_turn(self._waiting, self._running)
        return sorted(in_turn, key=lambda request: request.caller in penalized)

    def _penalized(self) -> set[str]:
        """Return the penalized callers, after dropping penalties that have ended."""
        now = self._clock()
        while self._penalties and next(iter(self._penalties.values())) <= now:
            del self._penalties[next(iter(self._penalties))]
        return set(self._penalties)
