"""Measurement of the load levels, one after the other."""

from collections.abc import Callable, Iterator
from random import Random
from time import perf_counter

from gpt2flow.cli.load.figures import LevelFigures, level_figures
from gpt2flow.cli.load.generator_load import monitored_load
from gpt2flow.cli.load.loops import closed_loop, open_loop, poisson, send
from gpt2flow.cli.load.measurements import Record
from gpt2flow.cli.load.settings import Budget, ClosedLevel, Level, Settings
from gpt2flow.cli.load.workload import Request
from gpt2flow.client import AsyncClient

# An open loop has no concurrency of its own for its warm-up.
_OPEN_WARMUP_CONCURRENCY = 4


class Sweep:
    """Sweep over load levels.

    Args:
        client: Client of the server.
        settings: Settings of the run.
        requests: Requests to send, unlimited.
        progress: Callback for each measured request that ends.

    Attributes:
        figures: Figures of the measured levels; the last one is incomplete after an interrupt.
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
        if not self._settings.warmup:
            return
        if isinstance(level, ClosedLevel):
            concurrency = level.concurrency
        else:
            concurrency = _OPEN_WARMUP_CONCURRENCY
        budget = Budget(requests=self._settings.warmup)
        await closed_loop(self._send_unmeasured, self._requests, concurrency, budget)

    async def _measure(self, level: Level) -> None:
        settings, records, complete = self._settings, list[Record](), False

        async def measure(request: Request, due: float) -> None:
            records.append(await self._send(request, due))
            self._progress(level)

        started = perf_counter()
        async with monitored_load() as load:
            try:
                if isinstance(level, ClosedLevel):
                    await closed_loop(measure, self._requests, level.concurrency, settings.budget)
                else:
                    arrivals = settings.budget.limit(poisson(level.rate, Random(settings.seed)))
                    await open_loop(measure, self._requests, arrivals, level.max_in_flight)
                complete = True
            finally:
                if records:
                    self.figures.append(
                        level_figures(
                            level.label,
                            records,
                            started,
                            load(),
                            limits=settings.limits,
                            complete=complete,
                        )
                    )

    async def _send(self, request: Request, due: float) -> Record:
        settings = self._settings
        return await send(
            self._client, request, seconds=settings.seconds, model=settings.model, due=due
        )

    async def _send_unmeasured(self, request: Request, due: float) -> None:
        await self._send(request, due)
