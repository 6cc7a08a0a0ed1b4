"""Times of the attempts at a message."""

import random
from dataclasses import dataclass, field
from datetime import timedelta

from gpt2flow.agent.errors import InputError

MAX_ATTEMPTS = 100
_FIRST_SECONDS = 5.0
_FACTOR = 3.0
_LONGEST_SECONDS = 6 * 3600.0
_JITTER = 0.2
# Longest wait that a receiver can ask for.
_LONGEST_ASKED_SECONDS = 24 * 3600.0
# No wait is longer; a time further ahead comes from a clock that was wrong.
LONGEST_WAIT = timedelta(seconds=_LONGEST_ASKED_SECONDS)


@dataclass(frozen=True)
class Backoff:
    """Exponential backoff with jitter.

    The first wait is 5 s, each further one three times as long, at most 6 hours. Each is multiplied
    by a random number from 0.8 to 1.2, so that messages that failed together are not tried
    together. 12 attempts take 18 to 27 hours.

    Attributes:
        attempts: Number of attempts after which a message is dead.
        source: Source of random numbers.
    """

    attempts: int = 12
    source: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
            InputError: The number of attempts is invalid.
        """
        if not 1 <= self.attempts <= MAX_ATTEMPTS:
            raise InputError(f"attempts is {self.attempts}, must be from 1 to {MAX_ATTEMPTS}")

    def wait(self, failed: int, retry_after: float = 0.0) -> timedelta | None:
        """Return the time until the next attempt; None after the last one.

        Args:
            failed: Number of attempts that have failed, at least 1.
            retry_after: Seconds that the receiver asked to wait, at most 24 hours of which count.
        """
        if failed >= self.attempts:
            return None
        seconds = min(_FIRST_SECONDS * _FACTOR ** (failed - 1), _LONGEST_SECONDS)
        seconds *= self.source.uniform(1 - _JITTER, 1 + _JITTER)
        return timedelta(seconds=max(seconds, min(retry_after, _LONGEST_ASKED_SECONDS)))
