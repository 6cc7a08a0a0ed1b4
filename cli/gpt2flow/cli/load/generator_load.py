"""Load of the generator itself, which must stay low for valid measurements."""

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from gpt2flow.cli.load.measurements import percentiles

_SAMPLING_PERIOD = 0.02


@dataclass(frozen=True)
class GeneratorLoad:
    """CPU use and event-loop lag of the load generator.

    Attributes:
        cpu_share: CPU time of this process per second, in cores.
        lag_p99_ms: 99th percentile of the event loop's wake-up lag, in milliseconds.
        lag_max_ms: Maximum wake-up lag, in milliseconds.
    """

    cpu_share: float
    lag_p99_ms: float
    lag_max_ms: float

    @property
    def saturated(self) -> bool:
        """True if the measured latencies may be the generator's own.

        The maximum lag counts too: a single long pause of the process is one sample among
        many, which the 99th percentile does not show.
        """
        return self.cpu_share > 0.9 or self.lag_p99_ms > 20 or self.lag_max_ms > 100


class GeneratorLoadMonitor:
    """Monitor of the running event loop for the duration of a block."""

    async def __aenter__(self) -> Self:
        self._started, self._cpu_time = time.perf_counter(), time.process_time()
        self._lags: list[float] = []
        self._task = asyncio.create_task(self._sample())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._task.cancel()

    def load(self) -> GeneratorLoad:
        """Return the load since the block began."""
        seconds = max(time.perf_counter() - self._started, 1e-9)
        lags = percentiles(self._lags)
        return GeneratorLoad(
            cpu_share=(time.process_time() - self._cpu_time) / seconds,
            lag_p99_ms=lags.p99 * 1000 if lags else 0.0,
            lag_max_ms=lags.max * 1000 if lags else 0.0,
        )

    async def _sample(self) -> None:
        while True:
            due = time.perf_counter() + _SAMPLING_PERIOD
            await asyncio.sleep(_SAMPLING_PERIOD)
            self._lags.append(max(0.0, time.perf_counter() - due))
