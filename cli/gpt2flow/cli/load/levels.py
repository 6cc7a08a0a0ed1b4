"""The steps of a sweep: how many requests at a time, or how many a second."""

import math
import re
from dataclasses import dataclass

from gpt2flow.cli.load.errors import LoadError

_MOST_STREAMS = 4096
_MOST_RATE = 10_000


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


def parse_concurrency(text: str) -> list[Level]:
    """Reads `1,4,8`.

    Raises:
        LoadError: A part is no number of streams.
    """
    parts = text.split(",")
    if not all(re.fullmatch(r"[0-9]{1,6}", p) and 1 <= int(p) <= _MOST_STREAMS for p in parts):
        raise LoadError(f"must be whole numbers from 1 to {_MOST_STREAMS}, between commas")
    return [ClosedLevel(int(part)) for part in parts]


def parse_rates(text: str, max_in_flight: int) -> list[Level]:
    """Reads `0.5,2,10`, in requests a second.

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
