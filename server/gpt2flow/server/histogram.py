"""A histogram for the way of every token: one thread observes, others read."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

# Seconds, fine enough for one token: what percentiles of the buckets can tell apart.
TOKEN_SECONDS: Final = (
    *(0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)


class Histogram:
    """Counts values by bucket; an observation is one bisection and two additions.

    Without a lock: only one thread may observe. A reader may see a value's
    bucket a moment before the sum knows of it.

    Attributes:
        bounds: The upper bounds of the buckets, ascending; one more bucket is above the last.
        counts: Values by bucket, each value in one of them.
        total: The sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Counts a value; one that equals a bound is in that bound's bucket."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
