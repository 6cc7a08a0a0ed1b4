"""Whose constraint is tried next."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gpt2flow.server.engine.forecast import OPTIMISM, Average
from gpt2flow.server.errors import OverloadedError, TimeLimitError
from gpt2flow.server.params import ConstraintParams

# For so long a caller goes behind all others after a constraint of its cost a process.
PENALTY_SECONDS: Final = 60.0

# What a refused client is told to wait at least.
_RETRY_SECONDS = 0.1


@dataclass(eq=False, slots=True)
class CompileRequest:
    """A constraint that waits to be tried, or is being tried.

    Attributes:
        params: The constraint.
        caller: Who sent it.
        done: Set when the outcome is known; whoever leaves cancels it.
    """

    params: ConstraintParams
    caller: str
    done: asyncio.Future[None]


class CompileQueue:
    """The trials that wait for one of a few processes. For one thread.

    It goes round: each caller has one trial before any has a second at the same time, then it
    is the next one's turn. So a trial waits for at most one of each other caller, however many
    these have sent.

    A caller whose constraint cost a process, by its time or its memory, goes behind all others
    for `PENALTY_SECONDS`, and all such callers together leave one process to the others.
    """

    def __init__(
        self, processes: int, places: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take how many trials run at the same time, and how many may wait for that."""
        self._processes = processes
        self._places = places
        self._clock = clock
        self._waiting: list[CompileRequest] = []
        self._running: Counter[str] = Counter()
        self._callers: dict[str, None] = {}  # Those with waiting trials, in the order of turns.
        self._penalties: dict[str, float] = {}  # When they end, in this order.
        self._seconds = Average()

    def add(self, trial: CompileRequest) -> None:
        """Put a trial into the line.

        When the line is full, whoever holds the most of it loses the latest of it.

        Raises:
            OverloadedError: That is the caller of this trial.
        """
        if len(self._waiting) >= self._places:
            self._make_room(trial.caller)
        self._waiting.append(trial)
        self._callers.setdefault(trial.caller)

    def discard(self, trial: CompileRequest) -> None:
        """Take a trial out of the line; one that runs or has ended is left alone."""
        if trial in self._waiting:
            self._waiting.remove(trial)
            if all(each.caller != trial.caller for each in self._waiting):
                del self._callers[trial.caller]

    def take(self) -> CompileRequest | None:
        """Take out the trial whose turn it is, if there is a process for it."""
        if self._running.total() >= self._processes:
            return None
        punished = sum(self._running[caller] for caller in self._punished())
        for trial in self._order():
            if trial.caller in self._penalties and punished >= max(self._processes - 1, 1):
                continue
            self.discard(trial)
            if trial.caller in self._callers:
                del self._callers[trial.caller]
                self._callers[trial.caller] = None
            self._running[trial.caller] += 1
            return trial
        return None

    def end(self, trial: CompileRequest, seconds: float, *, killed_worker: bool) -> None:
        """Note that a trial has ended, and after how long."""
        self._running -= Counter([trial.caller])
        self._seconds.add(seconds)
        if killed_worker:
            self._penalties.pop(trial.caller, None)
            self._penalties[trial.caller] = self._clock() + PENALTY_SECONDS

    def clear(self) -> list[CompileRequest]:
        """Take all out that wait, and returns them."""
        waiting, self._waiting = self._waiting, []
        self._callers.clear()
        return waiting

    def check_deadline(self, trial: CompileRequest, deadline: float) -> None:
        """Check that a trial can start in time, by the rule that requests are refused by.

        Raises:
            TimeLimitError: It cannot.
        """
        if trial not in self._waiting:
            return
        lacking = self._order().index(trial) + 1 - (self._processes - self._running.total())
        each = self._seconds.value / self._processes
        remaining = deadline - self._clock()
        if OPTIMISM * (lacking - 1) * each > remaining:
            raise TimeLimitError(
                f"the constraint would wait {lacking * each:.3f} s to be compiled, the time of the "
                f"request is up in {remaining:.3f} s"
            )

    def _make_room(self, newcomer: str) -> None:
        held = Counter(each.caller for each in self._waiting)
        caller, most = held.most_common(1)[0]
        if most <= held[newcomer] + 1:
            waiting = len(self._waiting)
            raise self._overloaded(f"{waiting} constraints wait to be compiled, {waiting} may")
        displaced = next(each for each in reversed(self._waiting) if each.caller == caller)
        self.discard(displaced)
        if not displaced.done.done():
            text = "others need the places of constraints to be compiled that this caller has"
            displaced.done.set_exception(self._overloaded(text))

    def _overloaded(self, text: str) -> OverloadedError:
        delay = max(self._seconds.value / self._processes, _RETRY_SECONDS)
        return OverloadedError(text, retry_after_seconds=delay)

    def _order(self) -> list[CompileRequest]:
        """Return the trials that wait as their turns will come, if no others do."""
        ranks = {caller: rank for rank, caller in enumerate(self._callers)}
        rounds = self._running.copy()
        punished = self._punished()
        keys = {}
        for trial in self._waiting:
            keys[trial] = (trial.caller in punished, rounds[trial.caller], ranks[trial.caller])
            rounds[trial.caller] += 1
        return sorted(self._waiting, key=lambda trial: keys[trial])

    def _punished(self) -> set[str]:
        """Return who goes behind the others, and forgets whose time is up."""
        now = self._clock()
        while self._penalties and next(iter(self._penalties.values())) <= now:
            del self._penalties[next(iter(self._penalties))]
        return set(self._penalties)
