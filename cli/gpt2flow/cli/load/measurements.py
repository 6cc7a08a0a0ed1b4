"""Measurements of single requests, latency limits, and percentiles.

All times are seconds of one monotonic clock.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gpt2flow.cli.load import LoadError

_LIMITS_FORM = "must be one or more of ttft:MS, itl:MS and e2e:MS, separated by commas, each once"

OK = "OK"
# Not a gRPC status: the request timed out while --max-in-flight others were in flight.
NOT_STARTED = "NOT_STARTED"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Stream message that carries tokens.

    Attributes:
        time: Time of receipt.
        tokens: Number of tokens in the message.
    """

    time: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Record:
    """Measurements of one request.

    Attributes:
        due: Scheduled start. Latencies count from here, so that a request that waited for
            the generator does not appear fast.
        started: Time of sending.
        ended: End of the call.
        status: `OK`, the name of a gRPC status, or `NOT_STARTED`.
        detail: Error message of a failed request.
        chunks: Stream messages with tokens, in order.
        prompt_tokens: Number of prompt tokens, as reported by the server.
        cached_tokens: Number of prompt tokens taken from the prefix cache.
    """

    due: float
    started: float
    ended: float
    status: str = OK
    detail: str = ""
    chunks: Sequence[Chunk] = ()
    prompt_tokens: int = 0
    cached_tokens: int = 0

    @property
    def output_tokens(self) -> int:
        """Number of generated tokens."""
        return sum(chunk.tokens for chunk in self.chunks)

    @property
    def start_delay(self) -> float:
        """Seconds from the scheduled start to the actual one."""
        return self.started - self.due

    @property
    def ttft(self) -> float | None:
        """Time to first token in seconds; None without tokens."""
        return self.chunks[0].time - self.due if self.chunks else None

    @property
    def e2e(self) -> float:
        """End-to-end latency in seconds."""
        return self.ended - self.due

    @property
    def chunk_gaps(self) -> list[float]:
        """Seconds between consecutive chunks: the pauses that a reader sees."""
        times = [chunk.time for chunk in self.chunks]
        return [later - earlier for earlier, later in pairwise(times)]

    @property
    def inter_token(self) -> list[float]:
        """Inter-token latency in seconds of each token after the first chunk.

        Tokens of one chunk share its gap evenly. One gap for all would overstate the
        latency of a token; gaps of zero would understate it.
        """
        gaps = zip(self.chunk_gaps, self.chunks[1:], strict=True)
        return [gap / chunk.tokens for gap, chunk in gaps for _ in range(chunk.tokens)]

    @property
    def mean_inter_token(self) -> float | None:
        """Mean inter-token latency in seconds; None with a single chunk."""
        tokens = sum(chunk.tokens for chunk in self.chunks[1:])
        return (self.chunks[-1].time - self.chunks[0].time) / tokens if tokens else None


def add_unstreamed_tokens(chunks: list[Chunk], total: int, ended: float) -> list[Chunk]:
    """Return the chunks, with unstreamed tokens as a last one.

    Beam search streams no tokens at all; the final usage alone reports their number.

    Args:
        chunks: Received chunks; those without tokens are dropped.
        total: Number of generated tokens, from the usage.
        ended: Time of the end of the call.
    """
    streamed = [chunk for chunk in chunks if chunk.tokens]
    missing = total - sum(chunk.tokens for chunk in streamed)
    return [*streamed, Chunk(ended, missing)] if missing > 0 else streamed


@dataclass(frozen=True)
class LatencyLimits:
    """Latency limits of goodput, in milliseconds; infinity is no limit.

    Attributes:
        ttft: Limit of the time to first token.
        itl: Limit of a request's mean inter-token latency.
        e2e: Limit of the end-to-end latency.
    """

    ttft: float = math.inf
    itl: float = math.inf
    e2e: float = math.inf

    def met_by(self, record: Record) -> bool:
        """Return whether a request succeeded within all limits.

        A latency that a request does not have meets its limit: TTFT without tokens, ITL
        with a single chunk.
        """
        return (
            record.status == OK
            and (record.ttft or 0.0) * 1000 <= self.ttft
            and (record.mean_inter_token or 0.0) * 1000 <= self.itl
            and record.e2e * 1000 <= self.e2e
        )


def parse_limits(text: str) -> LatencyLimits:
    """Parse limits in milliseconds, such as `ttft:200,itl:30,e2e:5000`.

    Raises:
        LoadError: A part is unknown, repeated, or not a positive number.
    """
    limits: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.partition(":")
        try:
            milliseconds = float(value)
        except ValueError:
            raise LoadError(_LIMITS_FORM) from None
        if name not in {"ttft", "itl", "e2e"} or name in limits or not 0 < milliseconds < math.inf:
            raise LoadError(_LIMITS_FORM)
        limits[name] = milliseconds
    return LatencyLimits(**limits)


@dataclass(frozen=True)
class Percentiles:
    """Count, mean, percentiles and maximum of values, in their unit."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


def percentiles(values: Iterable[float]) -> Percentiles | None:
    """Return the percentiles of values, None without values."""
    ordered = sorted(values)
    if not ordered:
        return None
    return Percentiles(
        count=len(ordered),
        mean=sum(ordered) / len(ordered),
        p50=percentile(ordered, 50),
        p90=percentile(ordered, 90),
        p95=percentile(ordered, 95),
        p99=percentile(ordered, 99),
        max=ordered[-1],
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return one percentile, interpolated linearly as in `numpy.percentile`.

    Args:
        ordered: Ascending values, at least one.
        percent: Percentile, from 0 to 100.
    """
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
