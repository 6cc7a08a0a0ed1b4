"""Figures computed from samples: medians, ratios to the best peer, goals."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from peers.measurements import Column
from peers.session import Result


@dataclass(frozen=True)
class Figure:
    """Summary of the samples of one cell.

    Attributes:
        median: Median of the samples.
        least: Smallest sample.
        most: Largest sample.
        samples: Number of samples.
    """

    median: float
    least: float
    most: float
    samples: int


@dataclass(frozen=True)
class Goal:
    """Target for one of gpt2flow's figures.

    Attributes:
        title: Name in the report.
        column: Key of the figure.
        limit: Bound of the ratio to the best of the peers, or of the figure itself.
        higher: True if the limit is a minimum, False if it is a maximum.
        against: Start of the keys of the peers to compare with; None stands for no comparison.
        kind: Start of the kinds of the peers to compare with.
        variant: Variant that it applies to; None is all.
    """

    title: str
    column: str
    limit: float
    higher: bool = False
    against: str | None = ""
    kind: str = ""
    variant: str | None = None


GOALS = [
    Goal("×1 of int4", "x1", 1.35, higher=True, variant="int4"),
    Goal("×4", "x4", 1.8, higher=True),
    Goal("×8", "x8", 1.8, higher=True),
    Goal("×16", "x16", 1.8, higher=True),
    Goal("×16 at 800 positions", "long16", 1.6, higher=True),
    Goal("×16, against servers", "x16", 2.5, higher=True, kind="server"),
    Goal("first token", "first", 0.6),
    Goal("first token beside 8 streams", "beside8", 0.5),
    Goal("4 beams, a step", "beam4", 0.22),
    Goal("agent turn, against OpenVINO", "turn", 0.28, against="openvino"),
    Goal("load to first token, s", "startup", 0.8, against=None),
    Goal("memory of int8, MB", "memory", 520, against=None, variant="int8"),
    Goal("memory of int4, MB", "memory", 460, against=None, variant="int4"),
]
# Limit of the inter-token latency through gRPC, relative to that of the bare engine loop.
MAX_OVERHEAD = 1.10


def summarize(samples: Sequence[float]) -> Figure:
    """Return the median and the range of samples."""
    return Figure(median(samples), min(samples), max(samples), len(samples))


def median_value(result: Result, key: str) -> float | None:
    """Return the median of a figure, None without samples."""
    samples = result.samples.get(key)
    return median(samples) if samples else None


def best_peer(
    results: Sequence[Result], key: str, *, higher: bool, prefix: str = "", kind: str = ""
) -> tuple[float, Result] | None:
    """Return the peers' best figure and its engine, None without one.

    Args:
        results: Results of all engines.
        key: Key of the figure.
        higher: True if higher is better.
        prefix: Start of a peer's key.
        kind: Start of a peer's kind.
    """
    candidates = [
        (value, result)
        for result in results
        if result.engine.is_peer
        and result.engine.key.startswith(prefix)
        and result.engine.kind.startswith(kind)
        and (value := median_value(result, key)) is not None
    ]
    pick = max if higher else min
    return pick(candidates, key=lambda pair: pair[0], default=None)


def ratio(results: Sequence[Result], result: Result, column: Column) -> float | None:
    """Return a figure over the best peer's, None if either is absent."""
    own = median_value(result, column.key)
    peer = best_peer(results, column.key, higher=column.higher)
    return None if own is None or peer is None else own / peer[0]


def goal_peer(results: Sequence[Result], goal: Goal) -> tuple[float, Result] | None:
    """Return the best figure that a goal compares with, and its engine.

    The result is None without one.
    """
    if goal.against is None:
        return None
    return best_peer(results, goal.column, higher=goal.higher, prefix=goal.against, kind=goal.kind)


def evaluate_goal(
    results: Sequence[Result], result: Result, goal: Goal
) -> tuple[float, bool] | None:
    """Return an engine's value for a goal, and True if reached.

    The value is a ratio or a figure, depending on `Goal.against`. The result is None if the
    engine or its peers have no such figure.
    """
    own = median_value(result, goal.column)
    if own is None or (goal.variant and goal.variant != result.engine.variant):
        return None
    if goal.against is not None:
        peer = goal_peer(results, goal)
        if peer is None:
            return None
        own /= peer[0]
    return own, own >= goal.limit if goal.higher else own <= goal.limit


def overhead(results: Sequence[Result], result: Result) -> tuple[float, bool] | None:
    """Return the server's overhead, and True if it is within its limit.

    The overhead is the inter-token latency of one stream through gRPC, over that of the bare engine
    loop. The result is None if either was not measured.
    """
    key = result.engine.key.replace("gpt2flow", "engine")
    bare = next((median_value(other, "x1") for other in results if other.engine.key == key), None)
    served = median_value(result, "x1")
    if bare is None or served is None:
        return None
    return bare / served, bare / served <= MAX_OVERHEAD


def share_of_bandwidth(result: Result, gigabytes_per_second: float) -> float | None:
    """Return the share of memory bandwidth that single-stream decoding uses.

    It is the time to read the weights of a step over the time of a decode step.
    """
    rate, size = median_value(result, "x1"), result.about.get("step_bytes")
    return None if rate is None or not size else size * rate / (gigabytes_per_second * 1e9)
