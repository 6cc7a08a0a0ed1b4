"""How long prompts and outputs are: distributions of numbers of tokens."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from gpt2flow.cli.load.errors import LoadError

FORMS = (
    "N, fixed:N, uniform:LOW-HIGH, normal:MEAN,SD or lognormal:MEDIAN,SIGMA "
    "(a third number is the most)"
)

# More than any GPT-2 has room for; keeps the tail of a distribution finite.
_MOST = 1_000_000
# Above it, e to the power of a draw no longer fits a double.
_MOST_SIGMA = 10.0

_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_PATTERN = re.compile(
    r"(?:fixed:)?(?P<fixed>\d{1,9})"
    r"|uniform:(?P<low>\d{1,9})-(?P<high>\d{1,9})"
    rf"|(?P<kind>normal|lognormal):(?P<centre>{_NUMBER}),(?P<spread>{_NUMBER})(?:,(?P<most>\d{{1,9}}))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Lengths:
    """A distribution of lengths, in tokens.

    Attributes:
        text: As it was given.
        most: Longer draws become this; shorter ones than 1 become 1.
    """

    text: str
    most: int
    _sample: Callable[[Random], float]

    def draw(self, rng: Random) -> int:
        """Draws one length."""
        return round(max(1, min(self.most, self._sample(rng))))


def parse_lengths(text: str) -> Lengths:
    """Reads a distribution.

    Raises:
        LoadError: It is none of `FORMS`, or its numbers make no sense.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise LoadError(f"must be {FORMS}")
    if match["fixed"]:
        low = high = int(match["fixed"])
    elif match["low"]:
        low, high = int(match["low"]), int(match["high"])
    else:
        return _bell(text, match["kind"], float(match["centre"]), float(match["spread"]), match)
    if not 1 <= low <= high <= _MOST:
        raise LoadError(f"lengths must be from 1 to {_MOST:,}, the lower one first")
    return Lengths(text, high, lambda rng: rng.randint(low, high))


def _bell(text: str, kind: str, centre: float, spread: float, match: re.Match[str]) -> Lengths:
    most = int(match["most"] or _MOST)
    if not (1 <= centre <= _MOST and 1 <= most <= _MOST):
        raise LoadError(f"lengths must be from 1 to {_MOST:,}")
    if kind == "normal":
        return Lengths(text, most, lambda rng: rng.gauss(centre, spread))
    if spread > _MOST_SIGMA:
        raise LoadError(f"SIGMA is the deviation of the logarithm, at most {_MOST_SIGMA:g}")
    return Lengths(text, most, lambda rng: rng.lognormvariate(math.log(centre), spread))
