"""Limits of latency, and which requests kept them."""

import math
from dataclasses import dataclass

from gpt2flow.cli.load.errors import LoadError
from gpt2flow.cli.load.measurements import OK, Record

_FORM = "must be some of ttft:MS, itl:MS and e2e:MS, each once, between commas"


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
    """Reads `ttft:200,itl:30,e2e:5000`, in milliseconds.

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
