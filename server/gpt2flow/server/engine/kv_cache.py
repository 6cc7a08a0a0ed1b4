"""Which slot of the KV cache holds what: bookkeeping only, no tensors.

A slot knows the tokens whose keys and values it holds, and goes on knowing them
when it is given back: a prompt that starts with them need not run them again.
"""

import heapq
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# What is remembered is copied elsewhere only when more than this share of it would be lost:
# of prompts that differ in their ends alone, one is enough to remember.
_LOST_SHARE = 0.25


class CacheCopy(NamedTuple):
    """Positions [start, stop) of one slot are to be copied to another."""

    source: int
    target: int
    start: int
    stop: int


class SlotCache:
    """Slots of equal capacity, each with the keys and values of one sequence.

    The running sequences are in the lowest slots, because a decode step runs
    over all rows up to the last. What free slots remember makes way for them:
    to the slot that was of use the longest time ago.

    Attributes:
        slots: How many there are.
        capacity: Positions in each.
        lengths: By slot, how many positions are filled; in a free one, remembered.
    """

    def __init__(self, slots: int, capacity: int) -> None:
        self.slots = slots
        self.capacity = capacity
        self._now = itertools.count(1)
        self.clear()

    def clear(self) -> None:
        """Free all slots, and forgets what they hold."""
        self.lengths = [0] * self.slots
        self._tokens: list[list[int]] = [[] for _ in range(self.slots)]
        self._free = list(range(self.slots))
        self._copies: list[CacheCopy] = []
        # By slot, when what it remembers was last of use; 0 when that is nothing.
        self._used = [0] * self.slots

    @property
    def free_slots(self) -> int:
        """How many slots are free."""
        return len(self._free)

    @property
    def filled(self) -> tuple[int, int]:
        """How many positions running sequences fill, and how many free slots remember."""
        remembered = sum(self.lengths[slot] for slot in tuple(self._free))
        return max(0, sum(self.lengths) - remembered), remembered

    def allocate(self, count: int, wanted: Sequence[int] = ()) -> list[int]:
        """Take free slots, the lowest.

        Args:
            count: How many, at least one.
            wanted: Tokens that the first slot returned shall hold already, as
                many of the leading ones as any slot has; the others are empty.

        Raises:
            ValueError: Fewer are free; ask `free_slots` first.
        """
        if count > len(self._free):
            raise ValueError(f"{count} slots asked for, {len(self._free)} free")
        taken = [heapq.heappop(self._free) for _ in range(count)]
        source, shared = self._longest_match(wanted, (*taken, *range(self.slots)))
        if shared:
            self._used[source] = next(self._now)
            # A slot that is taken anyway needs no copy.
            taken.sort(key=lambda slot: slot != source)
        for slot in taken:
            kept = shared if slot == source else 0
            self._keep_aside(slot, kept)
            self.truncate(slot, kept)
        self.reuse(taken[0], wanted)
        if self._lives_on(source, shared):
            self._used[source] = 0
        return taken

    def known(self, tokens: Sequence[int]) -> int:
        """Return how many leading ones of these tokens some slot holds."""
        return self._longest_match(tokens, range(self.slots))[1]

    def reuse(self, slot: int, wanted: Sequence[int]) -> int:
        """Copy to a slot what others hold of the tokens that it shall hold.

        Args:
            slot: Holds the first of the tokens, or nothing.
            wanted: The tokens.

        Returns:
            How many of the tokens the slot holds now.
        """
        source, shared = self._longest_match(wanted, range(self.slots))
        if shared > self.lengths[slot]:
            self._copy(source, slot, self.lengths[slot], shared)
        return self.lengths[slot]

    def free(self, slot: int) -> None:
        """Give a slot back; what it holds is remembered."""
        # A decode step may write at the position after the last one.
        self.truncate(slot, self.capacity - 1)
        self._used[slot] = next(self._now) if self.lengths[slot] else 0
        heapq.heappush(self._free, slot)

    def forget(self) -> None:
        """Forget what free slots remember."""
        for slot in self._free:
            self.truncate(slot, 0)
            self._used[slot] = 0

    def extend(self, slot: int, tokens: Sequence[int]) -> None:
        """Note that the model ran these tokens at the next positions."""
        self._tokens[slot].extend(tokens)
        self.lengths[slot] += len(tokens)

    def truncate(self, slot: int, length: int) -> None:
        """Forget all positions from `length` on."""
        del self._tokens[slot][length:]
        self.lengths[slot] = len(self._tokens[slot])

    def fork(self, source: int, target: int, shared: int = 0) -> None:
        """Make `target` hold what `source` holds.

        Args:
            source: A slot that stays as it is.
            target: A slot in the same hands, whose content is given up.
            shared: How many leading positions are equal in both already.
        """
        self._copy(source, target, shared, self.lengths[source])

    def take_copies(self) -> list[CacheCopy]:
        """Return the copies that the model's arrays need, in order, before they run again."""
        copies, self._copies = self._copies, []
        return copies

    def _copy(self, source: int, target: int, start: int, stop: int) -> None:
        self._tokens[target] = self._tokens[source][:stop]
        self.lengths[target] = stop
        self._copies.append(CacheCopy(source, target, start, stop))

    def _keep_aside(self, slot: int, kept: int) -> None:
        """Move what a slot remembers out of the way, unless most of it lives on.

        Args:
            slot: Is about to forget.
            kept: How many positions it will go on holding.
        """
        tokens = self._tokens[slot]
        others = (other for other in range(self.slots) if other != slot)
        twin, covered = self._longest_match(tokens, others)
        if self._lives_on(slot, max(kept, covered)):
            if covered > kept:
                self._used[twin] = max(self._used[twin], self._used[slot])
            return
        oldest = min(self._free, key=self._used.__getitem__, default=slot)
        if self._used[oldest] < self._used[slot]:
            self._copy(slot, oldest, 0, len(tokens))
            self._used[oldest] = self._used[slot]

    def _lives_on(self, slot: int, kept: int) -> bool:
        """Whether most of what a slot remembers is kept when so many positions are."""
        return self.lengths[slot] - kept <= _LOST_SHARE * self.lengths[slot]

    def _longest_match(self, tokens: Sequence[int], slots: Iterable[int]) -> tuple[int, int]:
        """Return the first slot that holds the most leading ones of the tokens, and how many."""
        best, longest = 0, 0
        wanted = list(tokens)
        for slot in slots:
            held = self._tokens[slot]
            # Most slots are out of the question after one comparison.
            if held[: longest + 1] == wanted[: longest + 1]:
                shared = _common_length(held, wanted)
                if shared > longest:
                    best, longest = slot, shared
        return best, longest


def _common_length(one: list[int], other: list[int]) -> int:
    """Return how many leading tokens are equal, by bisection: slices compare fast."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
