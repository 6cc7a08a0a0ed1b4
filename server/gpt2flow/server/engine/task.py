"""Task of the engine: a request and the use of its logits."""

from abc import ABC, abstractmethod
from collections.abc import Sequence as Items
from typing import NamedTuple

from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.results import Delta, GenerationResult, ScoreResult, Timing
from gpt2flow.server.engine.sequence import Request, Sequence
from gpt2flow.server.errors import ServerError, TimeLimitError
from gpt2flow.server.sampling.logits import LogitsRows


class Row(NamedTuple):
    """Row of logits that predicts the token after a position."""

    sequence: Sequence
    position: int
    row: int


class Task(ABC):
    """Request with its state of generation or scoring.

    Attributes:
        request: The scheduler's view of it.
    """

    def __init__(self, request: Request) -> None:
        self.request = request

    @property
    @abstractmethod
    def done(self) -> bool:
        """True if no more runs are needed, once it has begun."""

    @abstractmethod
    def begin(self, cache: SlotCache) -> None:
        """Start the first sequence, once the request has its slots."""

    @abstractmethod
    def accept(self, rows: Items[Row], logits: LogitsRows, cache: SlotCache) -> None:
        """Take the logits of one run: append tokens, end sequences."""

    def draft(self, cache: SlotCache, break_even: float) -> None:
        """Draft next tokens, before a run.

        Args:
            cache: Slots of the request.
            break_even: Acceptance rate from which a draft token pays, from 0 to 1.
        """
        del cache, break_even

    @abstractmethod
    def result(self, finished: float) -> GenerationResult | ScoreResult:
        """Return the result, at a time of the engine's clock."""

    def deltas(self) -> Items[Delta]:
        """Return the news since the last call, for requests that stream."""
        return ()

    def expire(self, finished: float) -> GenerationResult | ScoreResult | ServerError:
        """Return the answer of a request whose time is up."""
        waited = finished - self.request.arrival
        return TimeLimitError(f"the request's time was up after {waited:.3f} s")

    def timing(self, finished: float) -> Timing:
        """Return the seconds of each phase."""
        request = self.request
        started = finished if request.started is None else request.started
        first_token = finished if request.first_token is None else request.first_token
        return Timing(
            queue=started - request.arrival,
            prefill=first_token - started,
            decode=finished - first_token,
            total=finished - request.arrival,
        )
