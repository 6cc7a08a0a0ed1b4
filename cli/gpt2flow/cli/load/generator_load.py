"""How busy the generator itself was: a busy one measures itself, not the server."""

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from gpt2flow.cli.load.measurements import spread

_PERIOD = 0.02


@dataclass(frozen=True)
class GeneratorLoad:
    """What the generator took.

    Attributes:
        cpu_share: Processor time of this process, in cores.
        lag_p99_ms: How late its event loop woke, in milliseconds.
        lag_max_ms: The worst of it.
    """

    cpu_share: float
    lag_p99_ms: float
    lag_max_ms: float

    @property
    def heavy(self) -> bool:
        """Whether the figures may be the generator's own.

        The worst counts too: one long pause of the process is one lag of many.
        """
        return self.cpu_share > 0.9 or self.lag_p99_ms > 20 or self.lag_max_ms > 100


class GeneratorLoadMonitor:
    """Watches the running event loop while its block lasts."""

    async def __aenter__(self) -> Self:
        self._began, self._cpu = time.perf_counter(), time.process_time()
        self._lags: list[float] = []
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._task.cancel()

    def strain(self) -> GeneratorLoad:
        """Return what was seen since the block began."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        lags = spread(self._lags)
        return GeneratorLoad(
            cpu_share=(time.process_time() - self._cpu) / seconds,
            lag_p99_ms=lags.p99 * 1000 if lags else 0.0,
            lag_max_ms=lags.max * 1000 if lags else 0.0,
        )

    async def _watch(self) -> None:
        while True:
            due = time.perf_counter() + _PERIOD
            await asyncio.sleep(_PERIOD)
            self._lags.append(max(0.0, time.perf_counter() - due))
