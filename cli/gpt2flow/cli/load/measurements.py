"""What was seen of one request, and what follows from it. Times are seconds of one clock."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gpt2flow.cli.load import LoadError

_FORM = "must be some of ttft:MS, itl:MS and e2e:MS, each once, between commas"

OK = "OK"
# Not a status of gRPC: no place in flight became free before its time had passed.
NOT_STARTED = "NOT_STARTED"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message of a stream: when it came, and how many tokens it brought."""

    time: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Record:
    """One request.

    Attributes:
        due: When it should have started; latencies count from here, so that a
            request that had to wait for the generator is not taken for a fast one.
        started: When it was sent.
        ended: When the call had ended.
        status: `OK`, the name of a gRPC status, or `NOT_STARTED`.
        detail: What the server said, if it failed.
        arrivals: The messages that brought tokens.
        prompt_tokens: As the server counted them.
        cached_tokens: Of these, those whose cache was reused.
    """

    due: float
    started: float
    ended: float
    status: str = OK
    detail: str = ""
    arrivals: Sequence[Arrival] = ()
    prompt_tokens: int = 0
    cached_tokens: int = 0

    @property
    def output_tokens(self) -> int:
        """Tokens that were produced."""
        return sum(arrival.tokens for arrival in self.arrivals)

    @property
    def lateness(self) -> float:
        """Seconds from when it was due to when it was sent."""
        return self.started - self.due

    @property
    def ttft(self) -> float | None:
        """Seconds to the first token; None without one."""
        return self.arrivals[0].time - self.due if self.arrivals else None

    @property
    def e2e(self) -> float:
        """Seconds to the end."""
        return self.ended - self.due

    @property
    def message_gaps(self) -> list[float]:
        """Seconds between messages with tokens: the pauses that a reader sees."""
        times = [arrival.time for arrival in self.arrivals]
        return [later - earlier for earlier, later in pairwise(times)]

    @property
    def inter_token(self) -> list[float]:
        """Seconds for each token after the first message.

        Tokens that came in one message share its gap evenly: one gap for all
        would overrate, and gaps of zero would underrate, what a token takes.
        """
        shared = zip(self.message_gaps, self.arrivals[1:], strict=True)
        return [gap / arrival.tokens for gap, arrival in shared for _ in range(arrival.tokens)]

    @property
    def mean_inter_token(self) -> float | None:
        """Mean of `inter_token`; None if all tokens came at once."""
        tokens = sum(arrival.tokens for arrival in self.arrivals[1:])
        return (self.arrivals[-1].time - self.arrivals[0].time) / tokens if tokens else None


def with_uncounted(arrivals: list[Arrival], total: int, ended: float) -> list[Arrival]:
    """Add the tokens that only the usage at the end reports, as come with the end.

    Beam search streams nothing, so all of its tokens are such.
    """
    counted = [arrival for arrival in arrivals if arrival.tokens]
    missing = total - sum(arrival.tokens for arrival in counted)
    return [*counted, Arrival(ended, missing)] if missing > 0 else counted


@dataclass(frozen=True)
class Limits:
    """The most milliseconds of each kind; infinite where nothing was asked for.

    Attributes:
        ttft: To the first token.
        itl: Between tokens, in the mean of a request.
        e2e: To the end.
    """

    ttft: float = math.inf
    itl: float = math.inf
    e2e: float = math.inf

    def kept(self, record: Record) -> bool:
        """Whether a request succeeded within the limits.

        One that produced no token never waited for one, and one whose tokens
        came at once never waited for the next.
        """
        return (
            record.status == OK
            and (record.ttft or 0.0) * 1000 <= self.ttft
            and (record.mean_inter_token or 0.0) * 1000 <= self.itl
            and record.e2e * 1000 <= self.e2e
        )


def parse_limits(text: str) -> Limits:
    """Read `ttft:200,itl:30,e2e:5000`, in milliseconds.

    Raises:
        LoadError: A part is unknown, given twice, or no positive number.
    """
    given: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.partition(":")
        try:
            milliseconds = float(value)
        except ValueError:
            raise LoadError(_FORM) from None
        if name not in {"ttft", "itl", "e2e"} or name in given or not 0 < milliseconds < math.inf:
            raise LoadError(_FORM)
        given[name] = milliseconds
    return Limits(**given)


@dataclass(frozen=True)
class Percentiles:
    """How values are spread; in the unit of the values."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


def spread(values: Iterable[float]) -> Percentiles | None:
    """Return how values are spread; None if there are none."""
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
    """Interpolate between the two nearest ranks, as NumPy does by default.

    Args:
        ordered: Rising values, at least one.
        percent: From 0 to 100.
    """
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
