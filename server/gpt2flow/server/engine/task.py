"""What the engine asks of a request, whatever the request is for."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from collections.abc import Sequence as Items
from typing import NamedTuple

from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.results import (
    Delta,
    GenerationResult,
    ScoreResult,
    Timing,
)
from gpt2flow.server.engine.sequence import Request, Sequence
from gpt2flow.server.errors import ServerError, TimeLimitError
from gpt2flow.server.sampling.logits import LogitsRows

Clock = Callable[[], float]


class Row(NamedTuple):
    """Says which row of the logits follows which position of a sequence."""

    sequence: Sequence
    position: int
    row: int


class Task(ABC):
    """A request with what is made of its logits.

    Attributes:
        request: What the scheduler knows of it.
    """

    def __init__(self, request: Request) -> None:
        self.request = request

    @abstractmethod
    def begin(self, cache: SlotCache) -> None:
        """Make the first sequence, once the request has its slots."""

    @abstractmethod
    def accept(self, rows: Items[Row], logits: LogitsRows) -> None:
        """Take the logits of one run: appends tokens, ends sequences."""

    def draft(self) -> None:
        """Guess what comes next, before a run that would be for this request alone."""
        return

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether nothing more is to be run."""

    @abstractmethod
    def result(self, finished: float) -> GenerationResult | ScoreResult:
        """Return all that came of it, at a time of the engine's clock."""

    def deltas(self) -> Items[Delta]:
        """Return what is new since the last call, for requests that stream."""
        return ()

    def expire(self, finished: float) -> GenerationResult | ScoreResult | ServerError:
        """Return what the client gets when the time is up."""
        waited = finished - self.request.arrival
        return TimeLimitError(f"the request's time was up after {waited:.3f} s")

    def timing(self, finished: float) -> Timing:
        """Return where the time went."""
        request = self.request
        started = finished if request.started is None else request.started
        first_token = finished if request.first_token is None else request.first_token
        return Timing(
            queue=started - request.arrival,
            prefill=first_token - started,
            decode=finished - first_token,
            total=finished - request.arrival,
        )
