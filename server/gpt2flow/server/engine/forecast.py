"""Forecasts from measured runs: waiting times, and where drafts pay."""

from collections.abc import Iterator, Sequence
from typing import Final

from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.sequence import Request

# Least time between two checks of the queue.
CHECK_SECONDS: Final = 0.05

# Share of the expected wait that must exceed the remaining time before a request is refused.
OPTIMISM: Final = 0.5

# Shorter chunks measure the overhead of a run rather than the cost of a token. Where most of each
# prompt is cached, chunks of one token would make a long prompt look several times as slow.
MEASURED_TOKENS: Final = 16

# Weight of a value in an average, relative to that of the next one.
_DECAY = 0.9
# The same for runs, of which there are more.
_RUN_DECAY: Final = 0.98


class Average:
    """Exponentially weighted mean."""

    def __init__(self) -> None:
        self._total = 0.0
        self._count = 0.0

    def add(self, total: float, count: float = 1.0) -> None:
        """Add `count` values by their sum."""
        self._total = _DECAY * self._total + total
        self._count = _DECAY * self._count + count

    @property
    def value(self) -> float:
        """Mean of the values; 0 before the first."""
        return self._total / self._count if self._count else 0.0


class Forecast:
    """Estimate of the time until a waiting request gets its first token.

    Two durations are measured: `hold`, for which a request keeps a slot, and `token`, the cost of
    one token of a prompt. With S slots, one is released every hold / S. Let a request lack k
    slots, including those of all requests ahead of it, and p tokens of its prompt. Its expected
    wait is k * hold / S + p * token.

    It is refused if `OPTIMISM` * ((k - 1) * hold / S + p * token) exceeds the time until its
    deadline. So half of the mean counts, and the first slot costs nothing, since one may be
    released at any moment.

    Before the first measurement both durations are 0, and no request is refused. A request that
    can have its slots now is never refused. So some request always runs, and the measurements
    cannot become stale.
    """

    def __init__(self, cache: SlotCache) -> None:
        self._cache = cache
        self._hold = Average()
        self._token = Average()
        self._next_check = 0.0

    @property
    def release_interval(self) -> float:
        """Mean seconds between two releases of a slot, while all are taken.

        It is 0 before the first release.
        """
        return self._hold.value / self._cache.slots

    def record_prompt(self, seconds: float, tokens: int) -> None:
        """Record the duration of a prefill chunk; short ones are ignored."""
        if tokens >= MEASURED_TOKENS:
            self._token.add(seconds, tokens)

    def record_hold(self, seconds: float, slots: int) -> None:
        """Record how long a request held its slots."""
        self._hold.add(seconds * slots, slots)

    def record_arrival(self) -> None:
        """Record a new request, which makes a check of the queue due."""
        self._next_check = 0.0

    def due(self, now: float) -> bool:
        """Return whether a check of the queue is due, and count it."""
        if now < self._next_check:
            return False
        self._next_check = now + CHECK_SECONDS
        return True

    def late(self, waiting: Sequence[Request], now: float) -> Iterator[tuple[Request, float]]:
        """Yield the requests that cannot start in time, with their expected waits.

        Waits are in seconds until the first token.

        Args:
            waiting: Requests in the queue, in the order of their turns.
            now: Time of the engine's clock.
        """
        lacking = -self._cache.free_slots
        for request in waiting:
            lacking += request.slots_needed
            if request.deadline is None or request.allow_partial or lacking <= 0:
                continue
            remaining = request.deadline - now
            interval, prompt = self.release_interval, len(request.prompt) * self._token.value
            if OPTIMISM * ((lacking - 1) * interval + prompt) <= remaining:
                continue
            # The search for cached prefixes is expensive, so it comes last.
            prompt -= self._cache.cached_length(request.reusable) * self._token.value
            if OPTIMISM * ((lacking - 1) * interval + prompt) > remaining:
                yield request, lacking * interval + prompt
                lacking -= request.slots_needed


class RunCost:
    """Line through the durations of the latest runs, by their tokens.

    A run reads all weights, however few its tokens are. So another token costs less than a run of
    its own, and least where few sequences share a run.
    """

    def __init__(self) -> None:
        self._weight = 0.0
        self._tokens = 0.0
        self._seconds = 0.0
        self._tokens_squared = 0.0
        self._product = 0.0

    def record(self, tokens: int, seconds: float) -> None:
        """Record a run that computed the logits of all its tokens."""
        self._weight = _RUN_DECAY * self._weight + 1
        self._tokens = _RUN_DECAY * self._tokens + tokens
        self._seconds = _RUN_DECAY * self._seconds + seconds
        self._tokens_squared = _RUN_DECAY * self._tokens_squared + tokens * tokens
        self._product = _RUN_DECAY * self._product + tokens * seconds

    def break_even(self, tokens: int) -> float:
        """Return the acceptance rate from which a draft token pays.

        A run of n tokens takes a + b * n, and yields a token for each. One more token takes b. It
        pays if it is accepted more often than b * n / (a + b * n).

        Args:
            tokens: Number of tokens that the run has without drafts.

        Returns:
            A rate from 0 to 1; 0 while runs of one size alone were measured.
        """
        spread = self._weight * self._tokens_squared - self._tokens * self._tokens
        if spread <= 1e-9 * self._tokens_squared * self._weight:
            return 0.0
        slope = (self._weight * self._product - self._tokens * self._seconds) / spread
        constant = (self._seconds - slope * self._tokens) / self._weight
        marginal = max(slope, 0.0) * tokens
        total = max(constant, 0.0) + marginal
        return marginal / total if total > 0 else 0.0
