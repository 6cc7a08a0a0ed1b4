"""Statistics of an engine: written by its thread, read by others."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gpt2flow.server.engine.scheduler import Batch, Span

# Buckets in seconds, fine enough for percentiles of single tokens.
TOKEN_SECONDS: Final = (
    *(0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)

RUN_KINDS: Final = ("prefill", "extend", "decode")

_TOKENS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Histogram:
    """Counts of values by bucket.

    An observation is one bisection and two additions. There is no lock: one thread observes,
    others may read. A reader may see the count of a value before the sum includes it.

    Attributes:
        bounds: Upper bounds of the buckets, ascending; one more bucket is above the last.
        counts: Number of values by bucket, not cumulative.
        total: Sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value; bounds are inclusive."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class RunStats:
    """Runs of the model, and their tokens by kind.

    - `prefill`: tokens of prompts.
    - `extend`: drafts, forced tokens, and tokens that a preemption evicted.
    - `decode`: one token of each running sequence.

    A run counts as the first of these kinds that it has tokens of.

    Attributes:
        seconds: Durations of runs, by kind.
        tokens: Tokens per run, by kind.
        failures: Number of runs that failed, probing runs included.
        failures_in_row: Those since the last run that succeeded.
    """

    def __init__(self) -> None:
        self.seconds = {kind: Histogram(TOKEN_SECONDS) for kind in RUN_KINDS}
        self.tokens = {kind: Histogram(_TOKENS) for kind in RUN_KINDS}
        self.failures = 0
        self.failures_in_row = 0

    def fail(self) -> None:
        """Record a run that failed."""
        self.failures += 1
        self.failures_in_row += 1

    def observe(self, batch: Batch, seconds: float) -> None:
        """Record a run that succeeded, and its duration."""
        self.failures_in_row = 0
        counts = dict.fromkeys(RUN_KINDS, 0)
        for span in batch:
            counts[_kind(span)] += span.stop - span.start
        present = [kind for kind in RUN_KINDS if counts[kind]]
        self.seconds[present[0]].observe(seconds)
        for kind in present:
            self.tokens[kind].observe(counts[kind])


def _kind(span: Span) -> str:
    if span.in_prompt:
        return "prefill"
    return "decode" if span.stop - span.start == 1 else "extend"


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """Load of an engine at one moment.

    Attributes:
        running: Number of requests that hold slots.
        waiting: Number of requests in the queue.
        slots: Number of slots of the KV cache.
        free_slots: Number of slots that no request holds.
        positions: Positions of all slots together.
        positions_running: Positions filled by running sequences.
        positions_cached: Positions in the cached prefixes of free slots.
        preemptions: Number of preemptions since the start.
    """

    running: int
    waiting: int
    slots: int
    free_slots: int
    positions: int
    positions_running: int
    positions_cached: int
    preemptions: int

    @property
    def usage(self) -> float:
        """Share of the slots that requests hold, from 0 to 1."""
        return (self.slots - self.free_slots) / self.slots
