"""What an engine counts: kept by its thread, read by others."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gpt2flow.server.engine.scheduler import Chunk, Decode

# Seconds, fine enough for one token: what percentiles of the buckets can tell apart.
TOKEN_SECONDS: Final = (
    *(0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)

RUN_KINDS: Final = ("prefill", "extend", "decode")

_TOKENS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


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
        """Count a value; one that equals a bound is in that bound's bucket."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class RunStats:
    """Runs of the model, by kind.

    A prefill is a chunk of a prompt; an extension, a chunk of what a constraint
    forced, what was guessed, or what a preempted request lost; decoding, one
    token of each running sequence.

    Attributes:
        seconds: By kind, what a run took.
        tokens: By kind, how many tokens it ran over.
    """

    def __init__(self) -> None:
        self.seconds = {kind: Histogram(TOKEN_SECONDS) for kind in RUN_KINDS}
        self.tokens = {kind: Histogram(_TOKENS) for kind in RUN_KINDS}

    def observe(self, batch: Chunk | Decode, seconds: float) -> None:
        """Count a run."""
        if isinstance(batch, Chunk):
            kind = "prefill" if batch.start < batch.sequence.prompt_length else "extend"
            tokens = batch.stop - batch.start
        else:
            kind = "decode"
            tokens = sum([len(sequences) for _, sequences in batch.parts])
        self.seconds[kind].observe(seconds)
        self.tokens[kind].observe(tokens)


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How busy an engine is.

    Attributes:
        running: Requests that hold slots.
        waiting: Requests in the queue.
        slots: Slots of the KV cache.
        free_slots: Those of them that no request holds.
        positions: Positions of the KV cache in all slots together.
        positions_running: Those filled by running sequences.
        positions_cached: Those that free slots remember for the prompts to come.
        preemptions: How often a request had to give its slots up, so far.
    """

    running: int
    waiting: int
    slots: int
    free_slots: int
    positions: int
    positions_running: int
    positions_cached: int
    preemptions: int
