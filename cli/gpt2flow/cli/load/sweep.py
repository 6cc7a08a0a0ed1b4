"""Measures level after level."""

from collections.abc import Callable, Iterator
from random import Random
from time import perf_counter

from gpt2flow.cli.load.figures import LevelFigures, level_figures
from gpt2flow.cli.load.generator_load import GeneratorLoadMonitor
from gpt2flow.cli.load.loops import closed_loop, open_loop, poisson, send
from gpt2flow.cli.load.measurements import Record
from gpt2flow.cli.load.settings import Budget, ClosedLevel, Level, Settings
from gpt2flow.cli.load.workload import Request
from gpt2flow.client import AsyncClient

# In front of an open loop, which has no concurrency of its own.
_WARMUP_STREAMS = 4


class Sweep:
    """A sweep under way; `figures` holds what was measured, even if it was cut short.

    Args:
        client: Sends the requests.
        settings: What is measured.
        requests: What is sent, without end.
        progress: Called with each request that ended, of those that count.
    """

    def __init__(
        self,
        client: AsyncClient,
        settings: Settings,
        requests: Iterator[Request],
        progress: Callable[[Level], None] = lambda _level: None,
    ) -> None:
        self.figures: list[LevelFigures] = []
        self._client = client
        self._settings = settings
        self._requests = requests
        self._progress = progress

    async def run(self) -> None:
        """Measure all levels."""
        for level in self._settings.levels:
            await self._warm_up(level)
            await self._measure(level)

    async def _warm_up(self, level: Level) -> None:
        if self._settings.warmup:
            streams = level.concurrency if isinstance(level, ClosedLevel) else _WARMUP_STREAMS
            budget = Budget(requests=self._settings.warmup)
            await closed_loop(self._discard, self._requests, streams, budget)

    async def _measure(self, level: Level) -> None:
        settings, records, complete = self._settings, list[Record](), False

        async def note(request: Request, due: float) -> None:
            records.append(await self._send(request, due))
            self._progress(level)

        began = perf_counter()
        async with GeneratorLoadMonitor() as watch:
            try:
                if isinstance(level, ClosedLevel):
                    await closed_loop(note, self._requests, level.concurrency, settings.budget)
                else:
                    arrivals = settings.budget.cut(poisson(level.rate, Random(settings.seed)))
                    await open_loop(note, self._requests, arrivals, level.max_in_flight)
                complete = True
            finally:
                if records:
                    self.figures.append(
                        level_figures(
                            level.label,
                            records,
                            began,
                            watch.strain(),
                            limits=settings.limits,
                            complete=complete,
                        )
                    )

    async def _send(self, request: Request, due: float) -> Record:
        settings = self._settings
        return await send(
            self._client, request, seconds=settings.seconds, model=settings.model, due=due
        )

    async def _discard(self, request: Request, due: float) -> None:
        await self._send(request, due)
