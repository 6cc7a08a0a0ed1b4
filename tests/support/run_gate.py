"""Gate before the runs of a model, which holds its requests."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.waiting import SECONDS, until

from gpt2flow.server.engine.async_engine import AsyncEngine


class RunGate:
    """Gate that each run of an engine's model passes.

    The engine's thread waits at a closed gate before its next run. Meanwhile no request of this
    engine ends, except by its client, and new ones queue.

    Attributes:
        waiting: Whether a run waits at the gate.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._allowed: float = 0
        self.waiting = False
        self._changed = threading.Condition()

    def allow(self, runs: float) -> None:
        """Let `runs` more runs pass."""
        with self._changed:
            self._allowed += runs
            self.waiting = False
            self._changed.notify_all()

    def open(self) -> None:
        """Let all runs pass from now on."""
        self.allow(math.inf)

    def pass_run(self) -> None:
        """Wait until a run may pass."""
        with self._changed:
            self.waiting = self._allowed <= 0
            assert self._changed.wait_for(lambda: self._allowed > 0, SECONDS), "the gate is closed"
            self.waiting = False
            self._allowed -= 1

    async def until_unfinished(self, count: int) -> None:
        """Wait until the engine has `count` unfinished requests, waiting ones included."""
        await until(lambda: len(self._engine._live) == count)

    async def pass_runs(self, runs: int) -> None:
        """Let `runs` more runs pass, and wait for the next one."""
        self.allow(runs)
        await until(lambda: self.waiting)

    async def begin(self, *streams: Any) -> None:
        """Read the first message of each stream.

        The streams must be the only requests of the engine. One of 60 tokens is then far from
        its end.
        """
        await self.until_unfinished(len(streams))
        await self.pass_runs(4 * len(streams) + 4)
        for stream in streams:
            await stream.read()


@contextmanager
def closed_gate(engine: AsyncEngine) -> Iterator[RunGate]:
    """Hold the runs of an engine until the block ends."""
    gate, runner = RunGate(engine), engine.engine._runner

    def gated(run: Callable[..., Any]) -> Callable[..., Any]:
        def passing(*args: Any) -> Any:
            gate.pass_run()
            return run(*args)

        return passing

    runner.run = gated(runner.run)  # type: ignore[method-assign]
    try:
        yield gate
    finally:
        gate.open()
        del runner.run


def skip_time(engine: AsyncEngine, seconds: float) -> None:
    """Set the engine's clock forward, so that deadlines pass at once."""
    engine.engine._clock = lambda: time.monotonic() + seconds
