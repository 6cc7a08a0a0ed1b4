"""Queue of the requests that wait for slots."""

from bisect import bisect
from typing import Final

from gpt2flow.server.engine.sequence import Request
from gpt2flow.server.fair_queue import FairQueue

# Seconds of waiting that raise the effective priority by one.
AGING_SECONDS: Final = 10.0


class RequestQueue(FairQueue[Request]):
    """Requests by priority; those of one priority round-robin among callers.

    **Between priorities** the highest effective one is first: the priority as requested, plus
    one for each `AGING_SECONDS` that the oldest request of that priority has waited. So no
    stream of higher priorities starves a lower one.

    **Of one caller** the requests of one priority keep the order of arrival. A preempted request
    has had its turn, and goes before all others of its priority.
    """

    @property
    def top_priority(self) -> int:
        """Highest requested priority; the queue must not be empty."""
        return self._items[0].priority

    def add(self, request: Request) -> None:
        """Add a request, ordered by requested priority and arrival."""
        self._insert(bisect(self._items, _rank(request), key=_rank), request)

    def admit(self, request: Request, now: float) -> None:
        """Remove an admitted request, and store its effective priority."""
        request.effective_priority = max(
            _effective_priority(each, now)
            for each in self._items
            if each.priority == request.priority
        )
        # A preempted request has used its turn up before.
        if request.preemptions:
            self.remove(request)
        else:
            self.take(request)

    def first(self, now: float) -> Request:
        """Return the request that is next; the queue must not be empty."""
        oldest = min(self._items, key=lambda each: (-_effective_priority(each, now), each.id))
        return self._of(oldest.priority)[0]

    def highest(self) -> Request:
        """Return the next request of the highest requested priority."""
        return self._of(self.top_priority)[0]

    def order(self, now: float) -> list[Request]:
        """Return all requests in order of admission, without new arrivals."""
        oldest: dict[int, tuple[int, int]] = {}
        for each in self._items:
            rank = (-_effective_priority(each, now), each.id)
            oldest[each.priority] = min(rank, oldest.get(each.priority, rank))
        priorities = sorted(oldest, key=oldest.__getitem__)
        return [request for priority in priorities for request in self._of(priority)]

    def _of(self, priority: int) -> list[Request]:
        """Return the requests of one priority, in the order of their turns."""
        requests = [each for each in self._items if each.priority == priority]
        preempted = [each for each in requests if each.preemptions]
        return preempted + self.in_turn([each for each in requests if not each.preemptions])


def _rank(request: Request) -> tuple[int, int]:
    return -request.priority, request.id


def _effective_priority(request: Request, now: float) -> int:
    """Return the priority of a request that has waited until now."""
    return request.priority + int((now - request.queued) // AGING_SECONDS)
