"""Rate limit: requests of a session within a minute."""

import math
import time
from collections import deque
from collections.abc import Callable

from gpt2flow.agent.http.requests import RequestError

_MINUTE = 60.0
# Number of sessions below which none is looked for that has been silent for a minute.
_MIN_SESSIONS = 1000


class RateLimit:
    """Sliding window of a minute for each session.

    It holds the times of the last minute only, so requests bound its memory.

    Args:
        per_minute: Most requests of a session in any minute.
        now: Clock in seconds that never goes back.
    """

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._now = now
        self._times: dict[str, deque[float]] = {}
        self._purge_above = _MIN_SESSIONS

    def admit(self, session: str) -> None:
        """Count a request of a session.

        Raises:
            RequestError: The session has had its requests of this minute.
        """
        now = self._now()
        if len(self._times) > self._purge_above:
            self._purge(now)
        times = self._times.setdefault(session, deque())
        while times and times[0] <= now - _MINUTE:
            times.popleft()
        if len(times) >= self._per_minute:
            seconds = math.ceil(times[0] + _MINUTE - now)
            raise RequestError(
                429,
                "session",
                f"{len(times)} requests in the last minute, limit {self._per_minute}; retry in"
                f" {seconds} s",
                retry_after=seconds,
            )
        times.append(now)

    def __len__(self) -> int:
        """Return the number of sessions that are held."""
        return len(self._times)

    def _purge(self, now: float) -> None:
        for session in [each for each, times in self._times.items() if times[-1] <= now - _MINUTE]:
            del self._times[session]
        # Each purge costs as much as the requests since the last one.
        self._purge_above = max(_MIN_SESSIONS, 2 * len(self._times))
