"""What samples come to: medians, ratios to the best peer, goals."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from peers.measurements import Column
from peers.session import Result


@dataclass(frozen=True)
class Figure:
    """One cell: the median of so many samples, and their spread."""

    median: float
    least: float
    most: float
    samples: int


@dataclass(frozen=True)
class Goal:
    """What gpt2flow is to reach.

    Attributes:
        title: As shown.
        column: Which figure.
        against: The best peer's, if None; else the figure itself (an empty text), or that of the
            engines whose key starts so.
        limit: Of the ratio, or of the figure.
        higher: Whether the limit is the least, rather than the most.
    """

    title: str
    column: str
    against: str | None
    limit: float
    higher: bool


GOALS = [
    Goal("decode ×1", "x1", None, 1.15, higher=True),
    Goal("decode ×8", "x8", None, 1.15, higher=True),
    Goal("decode ×16", "x16", None, 1.15, higher=True),
    Goal("first token", "first", None, 0.95, higher=False),
    Goal("4 beams, a step", "beam4", None, 0.5, higher=False),
    Goal("agent turn, of llama-server's", "turn", "llama-server", 0.25, higher=False),
    Goal("memory, MB", "memory", "", 700, higher=False),
]
# Between tokens through gRPC, of the bare engine loop's time.
OVERHEAD = 1.10


def figure(samples: Sequence[float]) -> Figure:
    """Sum up samples."""
    return Figure(median(samples), min(samples), max(samples), len(samples))


def value(result: Result, key: str) -> float | None:
    """Return the median of a figure, if there is one."""
    samples = result.samples.get(key)
    return median(samples) if samples else None


def best(
    results: Sequence[Result], key: str, *, higher: bool, prefix: str = ""
) -> tuple[float, Result] | None:
    """Return the best figure of the peers whose key starts so, and whose it is."""
    found = [
        (each, result)
        for result in results
        if result.engine.is_peer
        and result.engine.key.startswith(prefix)
        and (each := value(result, key)) is not None
    ]
    pick = max if higher else min
    return pick(found, key=lambda pair: pair[0], default=None)


def ratio(results: Sequence[Result], result: Result, column: Column) -> float | None:
    """Return a figure over that of the best peer."""
    mine, peer = value(result, column.key), best(results, column.key, higher=column.higher)
    return None if mine is None or peer is None else mine / peer[0]


def reached(results: Sequence[Result], result: Result, goal: Goal) -> tuple[float, bool] | None:
    """Return what a goal is about, of one engine, and whether it is reached."""
    mine = value(result, goal.column)
    if mine is None:
        return None
    if goal.against != "":
        peer = best(results, goal.column, higher=goal.higher, prefix=goal.against or "")
        if peer is None:
            return None
        mine /= peer[0]
    return mine, mine >= goal.limit if goal.higher else mine <= goal.limit


def overhead(results: Sequence[Result], result: Result) -> tuple[float, bool] | None:
    """Return the time between tokens through gRPC over that of the bare engine loop."""
    key = result.engine.key.replace("gpt2flow", "engine")
    alone = next((value(other, "x1") for other in results if other.engine.key == key), None)
    served = value(result, "x1")
    if alone is None or served is None:
        return None
    return alone / served, alone / served <= OVERHEAD


def share_of_bandwidth(result: Result, gigabytes_per_second: float) -> float | None:
    """Return the time of reading the weights once over that of a decode step of one stream."""
    rate, size = value(result, "x1"), result.about.get("weight_bytes")
    return None if rate is None or not size else size * rate / (gigabytes_per_second * 1e9)
