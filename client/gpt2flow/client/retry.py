"""When a call is tried again, and how long that waits."""

from dataclasses import dataclass
from random import Random
from time import monotonic

from gpt2flow.client.errors import ClientError, OverloadedError, SettingsError, UnavailableError

# Spreads the clients that failed together; which number it is matters to nobody.
_random = Random()


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Tries a call again, where that is safe, until its deadline.

    It is safe while nothing of an answer was received, since no call changes anything on
    the server: what is lost is its work, and a generation without a seed may come out
    differently from one that nobody has seen. A stream is never tried again after its first
    delta. Tried again is what may pass: UNAVAILABLE, and RESOURCE_EXHAUSTED if the server
    says after which time.

    Attributes:
        attempts: How often a call is tried, the first time included.
        first_delay: Seconds before the second attempt; they double with each further one.
            A third of each wait, at most, is left out at random.
        max_delay: Seconds that they stop doubling at. A delay that the server asks for is
            kept, however long, and a part of the above is added to it.
    """

    attempts: int = 4
    first_delay: float = 0.1
    max_delay: float = 5.0

    def __post_init__(self) -> None:
        """Raise SettingsError when a value is out of its range."""
        if self.attempts < 1:
            raise SettingsError(f"attempts is {self.attempts}, must be at least 1")
        if not 0 < self.first_delay <= self.max_delay < float("inf"):
            raise SettingsError(
                f"first_delay is {self.first_delay} and max_delay {self.max_delay}; both must be "
                "above 0, and the first not above the second"
            )


class Attempts:
    """The attempts of one call.

    Args:
        retry: None is one attempt.
        seconds: That all of them may take together.
    """

    def __init__(self, retry: Retry | None, seconds: float) -> None:
        self._retry = retry
        self._deadline = monotonic() + seconds
        self._made = 0

    def remaining(self) -> float:
        """Seconds until the deadline."""
        return self._deadline - monotonic()

    def pause_after(self, error: ClientError) -> float | None:
        """Seconds to wait before the next attempt; None is no further one."""
        self._made += 1
        retry = self._retry
        if retry is None or self._made >= retry.attempts:
            return None
        pause = min(retry.max_delay, retry.first_delay * 2.0 ** (self._made - 1))
        if isinstance(error, OverloadedError) and error.retry_after is not None:
            pause = error.retry_after + pause * _random.uniform(0, 1 / 3)
        elif isinstance(error, UnavailableError):
            pause *= _random.uniform(2 / 3, 1)
        else:
            return None
        return pause if pause < self.remaining() else None
