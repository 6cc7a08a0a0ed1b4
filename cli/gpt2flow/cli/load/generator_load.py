"""Load of the generator itself, which must stay low for valid measurements."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

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


@asynccontextmanager
async def monitored_load() -> AsyncIterator[Callable[[], GeneratorLoad]]:
    """Monitor the running event loop for the duration of a block.

    Yields:
        A function that returns the load since the block began.
    """
    started, cpu_time, lags = time.perf_counter(), time.process_time(), list[float]()

    def load() -> GeneratorLoad:
        seconds = max(time.perf_counter() - started, 1e-9)
        lag = percentiles(lags)
        return GeneratorLoad(
            cpu_share=(time.process_time() - cpu_time) / seconds,
            lag_p99_ms=lag.p99 * 1000 if lag else 0.0,
            lag_max_ms=lag.max * 1000 if lag else 0.0,
        )

    sampling = asyncio.create_task(_sample(lags))
    try:
        yield load
    finally:
        sampling.cancel()


async def _sample(lags: list[float]) -> None:
    """Append the wake-up lag of the event loop, again and again."""
    while True:
        due = time.perf_counter() + _SAMPLING_PERIOD
        await asyncio.sleep(_SAMPLING_PERIOD)
        lags.append(max(0.0, time.perf_counter() - due))
