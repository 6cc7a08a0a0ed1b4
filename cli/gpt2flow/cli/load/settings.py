"""Validated settings of one benchmark run."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

from gpt2flow.cli.load import LoadError
from gpt2flow.cli.load.measurements import LatencyLimits
from gpt2flow.cli.load.prompts import FilePrompt, Lengths

_MAX_CONCURRENCY = 4096
_MAX_RATE = 10_000


@dataclass(frozen=True)
class Budget:
    """Size of a measurement, as a number of requests or a duration.

    Attributes:
        requests: Number of requests; None if `seconds` is given.
        seconds: Duration in seconds; None if `requests` is given.
    """

    requests: int | None = None
    seconds: float | None = None

    def limit(self, offsets: Iterator[float]) -> Iterator[float]:
        """Yield the offsets within the budget.

        Args:
            offsets: Ascending start times of requests, in seconds from the first.
        """
        end = math.inf if self.seconds is None else self.seconds
        return islice(takewhile(lambda offset: offset < end, offsets), self.requests)


@dataclass(frozen=True)
class ClosedLevel:
    """Closed-loop level with a fixed number of users.

    Each user sends the next request when the previous one has ended.

    Attributes:
        concurrency: Number of users, and thus of requests in flight.
    """

    concurrency: int

    @property
    def label(self) -> str:
        """Name of the level in tables and messages."""
        return f"concurrency {self.concurrency}"


@dataclass(frozen=True)
class OpenLevel:
    """Open-loop level, whose requests arrive independently of earlier ones.

    Attributes:
        rate: Mean number of arrivals per second.
        max_in_flight: Maximum number of requests in flight; arrivals beyond it start late.
    """

    rate: float
    max_in_flight: int

    @property
    def label(self) -> str:
        """Name of the level in tables and messages."""
        return f"rate {self.rate:g}/s"


Level = ClosedLevel | OpenLevel


@dataclass(frozen=True)
class Decoding:
    """Decoding settings of all requests.

    Attributes:
        temperature: Sampling temperature; 0 is greedy decoding.
        beams: Number of beams; above 1 selects beam search.
        json_schema: JSON schema that outputs match, as JSON text; None allows any text.
    """

    temperature: float = 0.0
    beams: int = 1
    json_schema: str | None = None


@dataclass(frozen=True)
class Settings:
    """Settings of one benchmark run.

    Attributes:
        levels: Load levels, measured in order.
        budget: Requests or duration of each level.
        warmup: Number of unmeasured requests before each level.
        prompts: Prompts from a file; None draws random ones.
        prompt_lengths: Distribution of random prompt lengths, without the shared prefix.
        shared_prefix: Number of tokens that all random prompts start with.
        output_lengths: Distribution of output lengths, for prompts without a length.
        decoding: Decoding settings of all requests.
        seconds: Timeout of a request in seconds, from when it is due.
        seed: Seed of all random numbers.
        model: Name of the model; empty selects the server's first.
        limits: Latency limits of goodput; None omits goodput.
    """

    levels: Sequence[Level]
    budget: Budget
    warmup: int
    prompts: Sequence[FilePrompt] | None
    prompt_lengths: Lengths
    shared_prefix: int
    output_lengths: Lengths
    decoding: Decoding
    seconds: float
    seed: int
    model: str
    limits: LatencyLimits | None


def parse_concurrency(text: str) -> list[Level]:
    """Parse concurrency levels, such as `1,4,8`.

    Raises:
        LoadError: A part is not a whole number in range.
    """
    parts = text.split(",")
    if not all(re.fullmatch(r"[0-9]{1,6}", p) and 1 <= int(p) <= _MAX_CONCURRENCY for p in parts):
        raise LoadError(f"must be whole numbers from 1 to {_MAX_CONCURRENCY}, separated by commas")
    return [ClosedLevel(int(part)) for part in parts]


def parse_rates(text: str, max_in_flight: int) -> list[Level]:
    """Parse arrival rates per second, such as `0.5,2,10`.

    Raises:
        LoadError: A part is not a number in range.
    """
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = [math.nan]
    if not all(0 < rate <= _MAX_RATE for rate in rates):
        raise LoadError(f"must be numbers above 0, at most {_MAX_RATE}, separated by commas")
    return [OpenLevel(rate, max_in_flight) for rate in rates]
