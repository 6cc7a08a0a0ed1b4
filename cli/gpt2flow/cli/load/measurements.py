"""What was seen of one request, and what follows from it. Times are seconds of one clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
    """Adds the tokens that only the usage at the end reports, as come with the end.

    Beam search streams nothing, so all of its tokens are such.
    """
    counted = [arrival for arrival in arrivals if arrival.tokens]
    missing = total - sum(arrival.tokens for arrival in counted)
    return [*counted, Arrival(ended, missing)] if missing > 0 else counted
