"""What one run of the command shall do, checked."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

from gpt2flow.cli.load import LoadError
from gpt2flow.cli.load.measurements import Limits
from gpt2flow.cli.load.prompts import FilePrompt, Lengths

_MOST_STREAMS = 4096

_MOST_RATE = 10_000


@dataclass(frozen=True)
class Budget:
    """How much is measured: a number of requests, or seconds; one of the two."""

    requests: int | None = None
    seconds: float | None = None

    def cut(self, offsets: Iterator[float]) -> Iterator[float]:
        """End a rising series of offsets, in seconds, where the budget does."""
        end = math.inf if self.seconds is None else self.seconds
        return islice(takewhile(lambda offset: offset < end, offsets), self.requests)


@dataclass(frozen=True)
class ClosedLevel:
    """As many users, each of whom sends the next request when the last one has ended."""

    concurrency: int

    @property
    def label(self) -> str:
        """As shown."""
        return f"concurrency {self.concurrency}"


@dataclass(frozen=True)
class OpenLevel:
    """Requests that come whether or not earlier ones have ended.

    Attributes:
        rate: Arrivals a second.
        max_in_flight: Of more, the next one waits, and starts late.
    """

    rate: float
    max_in_flight: int

    @property
    def label(self) -> str:
        """As shown."""
        return f"rate {self.rate:g}/s"


Level = ClosedLevel | OpenLevel


@dataclass(frozen=True)
class Decoding:
    """How outputs are made.

    Attributes:
        temperature: 0 is greedy.
        beams: Above 1: beam search.
        json_schema: What outputs must look like, as JSON text.
    """

    temperature: float = 0.0
    beams: int = 1
    json_schema: str | None = None


@dataclass(frozen=True)
class Settings:
    """A run.

    Attributes:
        levels: Measured one after the other.
        budget: Of each level.
        warmup: Requests before each level, which are not counted.
        prompts: Of a file; None draws them.
        prompt_lengths: Of drawn prompts, without the prefix.
        shared_prefix: Tokens that all drawn prompts begin with.
        output_lengths: Of outputs, where the file does not say.
        decoding: How outputs are made.
        seconds: That one request may take, from when it was due.
        seed: Of all that is drawn.
        model: The model; empty is the server's first.
        limits: Of goodput, if wanted.
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
    limits: Limits | None


def parse_concurrency(text: str) -> list[Level]:
    """Read `1,4,8`.

    Raises:
        LoadError: A part is no number of streams.
    """
    parts = text.split(",")
    if not all(re.fullmatch(r"[0-9]{1,6}", p) and 1 <= int(p) <= _MOST_STREAMS for p in parts):
        raise LoadError(f"must be whole numbers from 1 to {_MOST_STREAMS}, between commas")
    return [ClosedLevel(int(part)) for part in parts]


def parse_rates(text: str, max_in_flight: int) -> list[Level]:
    """Read `0.5,2,10`, in requests a second.

    Raises:
        LoadError: A part is no rate.
    """
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = [math.nan]
    if not all(0 < rate <= _MOST_RATE for rate in rates):
        raise LoadError(f"must be numbers above 0, at most {_MOST_RATE}, between commas")
    return [OpenLevel(rate, max_in_flight) for rate in rates]
