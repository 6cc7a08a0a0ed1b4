"""Fair queue: callers are served round-robin, and the largest holder makes room."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """Item of a queue."""

    @property
    def caller(self) -> str:
        """Name of its caller."""


Item = TypeVar("Item", bound=Queued)


class FairQueue(Generic[Item]):
    """Queue that is served round-robin among callers.

    One item of each caller is taken, then it is the next caller's turn. A caller without items
    leaves the round, and rejoins it at the end. So an item waits for at most one item of each
    other caller, however many those have queued, and a newcomer overtakes no one. Items of one
    caller are served in the order of the queue.
    """

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._counts: dict[str, int] = {}  # Items by caller; callers in the order of turns.

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item) -> None:
        """Append an item."""
        self._insert(len(self._items), item)

    def remove(self, item: Item) -> None:
        """Remove an item; its caller's turn is not used up."""
        self._items.remove(item)
        self._counts[item.caller] -= 1
        if not self._counts[item.caller]:
            del self._counts[item.caller]

    def take(self, item: Item) -> None:
        """Remove an item that is served, which ends its caller's turn."""
        self.remove(item)
        if item.caller in self._counts:
            self._counts[item.caller] = self._counts.pop(item.caller)

    def in_turn(self, items: Iterable[Item], served: Mapping[str, int] | None = None) -> list[Item]:
        """Return the items in the order of their turns.

        Args:
            items: Some of the queue's items, those of one caller in their order.
            served: Rounds by caller that are past already; None is none.
        """
        ranks = {caller: rank for rank, caller in enumerate(self._counts)}
        rounds = Counter(served or {})
        turns = []
        for item in items:
            turns.append((rounds[item.caller], ranks[item.caller], item))
            rounds[item.caller] += 1
        return [item for *_, item in sorted(turns, key=lambda turn: turn[:2])]

    def _insert(self, place: int, item: Item) -> None:
        self._items.insert(place, item)
        self._counts[item.caller] = self._counts.get(item.caller, 0) + 1


def largest_holder(held: Mapping[str, int], newcomer: str) -> str | None:
    """Return the caller whose item leaves a full queue for `newcomer`.

    Args:
        held: Items by caller, the newcomer's included.
        newcomer: Caller of the item that comes.

    Returns:
        The caller with the most items; None if that is the newcomer, which is refused then.
    """
    caller, most = Counter(held).most_common(1)[0]
    return None if most <= held[newcomer] else caller
