"""When requests are due: a Poisson process, cut at a number or a time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, takewhile
from random import Random


@dataclass(frozen=True)
class Budget:
    """How much is measured: a number of requests, or seconds; one of the two."""

    requests: int | None = None
    seconds: float | None = None

    def cut(self, offsets: Iterator[float]) -> Iterator[float]:
        """Ends a rising series of offsets, in seconds, where the budget does."""
        end = math.inf if self.seconds is None else self.seconds
        return islice(takewhile(lambda offset: offset < end, offsets), self.requests)


def poisson(rate: float, rng: Random) -> Iterator[float]:
    """Yields arrivals without end: seconds from the start, `rate` a second on average.

    Independent users make a Poisson process, whose bursts a fixed beat would hide.
    """
    offset = 0.0
    while True:
        offset += rng.expovariate(rate)
        yield offset
