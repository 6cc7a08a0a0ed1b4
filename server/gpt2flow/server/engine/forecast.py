"""How long requests will wait, by what was measured; which of them cannot start in time."""

from collections.abc import Iterator, Sequence
from typing import Final

from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.sequence import Request

# The queue is looked through at most this often.
CHECK_SECONDS: Final = 0.05

# A request is refused when this share of the time that it is expected to wait is too much.
OPTIMISM: Final = 0.5

# Chunks of fewer tokens say what a run costs, not what a token does: where the cache knows most of
# the prompts, those of one token would make a long prompt look several times as slow as it is.
MEASURED_TOKENS: Final = 16

# What a value counts in an average, of what the next one does.
_KEPT = 0.9


class Average:
    """A mean in which older values count less and less."""

    def __init__(self) -> None:
        self._total = 0.0
        self._count = 0.0

    def add(self, total: float, count: float = 1.0) -> None:
        """Note several values by their sum."""
        self._total = _KEPT * self._total + total
        self._count = _KEPT * self._count + count

    @property
    def value(self) -> float:
        """The mean; 0 before anything was noted."""
        return self._total / self._count if self._count else 0.0


class Forecast:
    """Tells when a waiting request may expect its first token.

    Two things are measured: how long a slot is held, and how long a token of a
    prompt takes. With S slots, one is given back every hold / S. A request that
    lacks k slots, counting those of all whose turn comes before, and p tokens
    of its prompt, is expected to wait for k * hold / S + p * token.

    It is refused when `OPTIMISM` * ((k - 1) * hold / S + p * token) is more
    than what remains until its deadline: half of the mean, and the first slot
    for nothing, since one may be given back at any moment. Before anything was
    measured, both are 0 and nobody is refused; nor is ever a request that can
    have its slots now. So the measures cannot become stale: whatever they say,
    something runs.
    """

    def __init__(self, cache: SlotCache) -> None:
        self._cache = cache
        self._hold = Average()
        self._token = Average()
        self._next_check = 0.0

    @property
    def slot_seconds(self) -> float:
        """Seconds from one slot given back to the next while all are taken; 0 is unknown."""
        return self._hold.value / self._cache.slots

    def note_prompt(self, seconds: float, tokens: int) -> None:
        """Note how long a chunk of a prompt took, if it is long enough to tell."""
        if tokens >= MEASURED_TOKENS:
            self._token.add(seconds, tokens)

    def note_held(self, seconds: float, slots: int) -> None:
        """Note how long a request held its slots."""
        self._hold.add(seconds * slots, slots)

    def note_arrival(self) -> None:
        """Has the queue looked through at once: a request came."""
        self._next_check = 0.0

    def due(self, now: float) -> bool:
        """Return whether it is time to look through the queue, and counts the time anew."""
        if now < self._next_check:
            return False
        self._next_check = now + CHECK_SECONDS
        return True

    def late(self, waiting: Sequence[Request], now: float) -> Iterator[tuple[Request, float]]:
        """Return the requests that cannot start in time, with the seconds each would wait.

        Args:
            waiting: In the order of their turns.
            now: A time of the engine's clock.
        """
        lacking = -self._cache.free_slots
        for request in waiting:
            lacking += request.slots_needed
            if request.deadline is None or request.allow_partial or lacking <= 0:
                continue
            remaining = request.deadline - now
            slots, prompt = self.slot_seconds, len(request.prompt) * self._token.value
            if OPTIMISM * ((lacking - 1) * slots + prompt) <= remaining:
                continue
            # Only now is it worth the while to ask what the cache knows.
            prompt -= self._cache.known(request.reusable) * self._token.value
            if OPTIMISM * ((lacking - 1) * slots + prompt) > remaining:
                yield request, lacking * slots + prompt
                lacking -= request.slots_needed
