"""Who waits for slots, and whose turn it is."""

from bisect import insort
from collections import Counter
from collections.abc import Iterator
from typing import Final

from gpt2flow.server.engine.sequence import Request

# Waiting for so long raises the effective priority by one.
AGING_SECONDS: Final = 10.0


class WaitingRequests:
    """The queue.

    **Between priorities** the highest effective one goes first: what was asked
    for, and one more for each `AGING_SECONDS` that the oldest request of that
    priority has waited. So no stream of higher ones keeps a priority waiting
    for ever.

    **Between callers** of one priority it goes round: each has one request
    admitted, then the next caller's turn comes. Who has nothing waiting leaves
    the round, and comes in again behind the others. So a request waits for at
    most one request of each other caller, however many these have sent, and
    newcomers overtake nobody.

    **Of one caller** the requests of one priority go in the order of arrival.
    One that was preempted has had its turn, and goes before all of its priority.
    """

    def __init__(self) -> None:
        self._requests: list[Request] = []  # By priority as asked for, then by arrival.
        self._callers: dict[str, int] = {}  # How many wait, by caller; in the order of turns.

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def top_priority(self) -> int:
        """The highest priority that one of them, of at least one, asked for."""
        return self._requests[0].priority

    def add(self, request: Request) -> None:
        """Put a request into the queue."""
        insort(self._requests, request, key=lambda each: (-each.priority, each.id))
        self._callers[request.caller] = self._callers.get(request.caller, 0) + 1

    def remove(self, request: Request) -> None:
        """Take a request out that ended before its turn."""
        self._requests.remove(request)
        self._callers[request.caller] -= 1
        if not self._callers[request.caller]:
            del self._callers[request.caller]

    def take(self, request: Request, now: float) -> None:
        """Take a request out because it is admitted, and notes what priority that was for."""
        request.effective_priority = max(
            _effective_priority(each, now)
            for each in self._requests
            if each.priority == request.priority
        )
        self.remove(request)
        if not request.preemptions and request.caller in self._callers:
            self._callers[request.caller] = self._callers.pop(request.caller)

    def first(self, now: float) -> Request:
        """Return whose turn it is, of at least one."""
        oldest = min(self._requests, key=lambda each: (-_effective_priority(each, now), each.id))
        return self._first_of(oldest.priority)

    def highest(self) -> Request:
        """Return whose turn it is among those that asked for the highest priority."""
        return self._first_of(self.top_priority)

    def order(self, now: float) -> list[Request]:
        """Return all of them as their turns will come, if no others do."""
        ranks = self._ranks()
        priorities: dict[int, tuple[int, int]] = {}
        rounds: Counter[tuple[int, str]] = Counter()
        keys: dict[int, tuple[int, ...]] = {}
        for each in self._requests:
            rank = (-_effective_priority(each, now), each.id)
            priorities[each.priority] = min(rank, priorities.get(each.priority, rank))
        for each in self._requests:
            turn = (0, 0, 0)
            if not each.preemptions:
                turns = (each.priority, each.caller)
                turn = (1, rounds[turns], ranks[each.caller])
                rounds[turns] += 1
            keys[each.id] = (*priorities[each.priority], *turn, each.id)
        return sorted(self._requests, key=lambda each: keys[each.id])

    def _first_of(self, priority: int) -> Request:
        ranks = self._ranks()
        return min(
            (each for each in self._requests if each.priority == priority),
            key=lambda each: (0 if each.preemptions else 1 + ranks[each.caller], each.id),
        )

    def _ranks(self) -> dict[str, int]:
        return {caller: rank for rank, caller in enumerate(self._callers)}


def _effective_priority(request: Request, now: float) -> int:
    """Return the priority of a request that has waited until now."""
    return request.priority + int((now - request.queued) // AGING_SECONDS)
