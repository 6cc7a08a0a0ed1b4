"""Retry policy and the attempts of one call."""

from dataclasses import dataclass
from random import Random
from time import monotonic

from gpt2flow.client import validation
from gpt2flow.client.errors import ClientError, OverloadedError, SettingsError, UnavailableError

# Jitter needs no seed: it only keeps clients that failed together from retrying together.
_random = Random()


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Policy for retrying failed calls until their deadline.

    Retried statuses are UNAVAILABLE, and RESOURCE_EXHAUSTED if the server sends a retry
    delay. A call fails at once if the next wait would outlast its deadline.

    A call is retried only while no part of its response has arrived. A stream is therefore
    never retried after its first delta. Retries are safe because no call changes state on
    the server: only the server's work is lost. Without a seed, the retry may generate
    another text than the failed attempt would have.

    Attributes:
        attempts: Maximum number of attempts, the first included.
        first_delay: Seconds before the second attempt. The delay doubles with each further
            attempt; random jitter shortens it by up to a third.
        max_delay: Maximum of the doubled delay, in seconds. A retry delay that the server
            sends is always waited in full, with up to a third of the client's own delay
            added as jitter.

    Raises:
        SettingsError: A value is out of range.
    """

    attempts: int = 4
    first_delay: float = 0.1
    max_delay: float = 5.0

    def __post_init__(self) -> None:
        """Raise SettingsError if a value is out of range."""
        if validation.integer("attempts", self.attempts) < 1:
            raise SettingsError(f"attempts is {self.attempts}, must be at least 1")
        first, most = (
            validation.number(name, getattr(self, name)) for name in ("first_delay", "max_delay")
        )
        if not 0 < first <= most < float("inf"):
            raise SettingsError(
                f"first_delay is {self.first_delay} and max_delay {self.max_delay}; must be "
                "0 < first_delay <= max_delay, both finite"
            )


class Attempts:
    """Attempts of one call, counted against its retry policy and deadline.

    Args:
        retry: Retry policy; None allows a single attempt.
        seconds: Seconds until the deadline of all attempts together.
    """

    def __init__(self, retry: Retry | None, seconds: float) -> None:
        self._retry = retry
        self._deadline = monotonic() + seconds
        self._failed = 0

    def remaining(self) -> float:
        """Return the seconds until the deadline."""
        return self._deadline - monotonic()

    def retry_delay(self, error: ClientError) -> float | None:
        """Return the seconds before the next attempt, or None to give up."""
        self._failed += 1
        retry = self._retry
        if retry is None or self._failed >= retry.attempts:
            return None
        # A larger power is no float.
        doublings = min(self._failed - 1, 1000)
        delay = min(retry.max_delay, retry.first_delay * 2.0**doublings)
        if isinstance(error, OverloadedError) and error.retry_after is not None:
            delay = error.retry_after + delay * _random.uniform(0, 1 / 3)
        elif isinstance(error, UnavailableError):
            delay *= _random.uniform(2 / 3, 1)
        else:
            return None
        return delay if delay < self.remaining() else None
