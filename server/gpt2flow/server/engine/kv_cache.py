"""Slots of the KV cache: bookkeeping of their tokens, without tensors.

A released slot keeps its tokens as a cached prefix. A prompt that starts with them need not run
them again.
"""

import heapq
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# A cached prefix is relocated only if more than this share of it would be lost. Of prompts that
# differ in their last tokens alone, one copy is enough.
_TOLERATED_LOSS = 0.25


class CacheCopy(NamedTuple):
    """Copy of positions [start, stop) from one slot to another."""

    source: int
    target: int
    start: int
    stop: int


class SlotCache:
    """Slots of equal capacity, each for the cache of one sequence.

    Running sequences occupy the lowest slots, because a decode step runs over all rows up to the
    last one. A cached prefix in the way of one is relocated: it overwrites the least recently
    used cached prefix.

    Attributes:
        slots: Number of slots.
        capacity: Positions per slot.
        lengths: Filled positions by slot; those of a free slot are a cached prefix.
    """

    def __init__(self, slots: int, capacity: int) -> None:
        self.slots = slots
        self.capacity = capacity
        self._now = itertools.count(1)
        self.clear()

    def clear(self) -> None:
        """Free all slots, and evict everything they hold."""
        self.lengths = [0] * self.slots
        self._tokens: list[list[int]] = [[] for _ in range(self.slots)]
        self._free = list(range(self.slots))
        self._copies: list[CacheCopy] = []
        # Time of the last use by slot, for LRU eviction; 0 without a cached prefix.
        self._last_used = [0] * self.slots

    @property
    def free_slots(self) -> int:
        """Number of free slots."""
        return len(self._free)

    @property
    def cached_positions(self) -> int:
        """Number of positions in the cached prefixes of free slots."""
        return sum(self.lengths[slot] for slot in tuple(self._free))

    @property
    def running_positions(self) -> int:
        """Number of positions that running sequences fill."""
        # Another thread may read while slots change hands.
        return max(0, sum(self.lengths) - self.cached_positions)

    def allocate(self, count: int, tokens: Sequence[int] = ()) -> list[int]:
        """Allocate the lowest free slots.

        The first one returned holds the longest cached prefix of `tokens`; the others are empty.

        Args:
            count: Number of slots, at least one.
            tokens: Tokens to be run in the first slot.

        Raises:
            ValueError: Fewer are free; check `free_slots` first.
        """
        if count > len(self._free):
            raise ValueError(f"{count} slots requested, {len(self._free)} free")
        taken = [heapq.heappop(self._free) for _ in range(count)]
        source, shared = self._longest_match(tokens, (*taken, *range(self.slots)))
        if shared:
            self._last_used[source] = next(self._now)
            # A match in an allocated slot needs no copy.
            taken.sort(key=lambda slot: slot != source)
        for slot in taken:
            kept = shared if slot == source else 0
            self._relocate(slot, kept)
            self.truncate(slot, kept)
        self.reuse(taken[0], tokens)
        if self._is_mostly_kept(source, shared):
            # The new sequence holds most of the source, which becomes the first to be evicted.
            self._last_used[source] = 0
        return taken

    def cached_length(self, tokens: Sequence[int]) -> int:
        """Return the number of leading tokens that some slot holds."""
        return self._longest_match(tokens, range(self.slots))[1]

    def reuse(self, slot: int, tokens: Sequence[int]) -> int:
        """Copy the longest cached prefix of `tokens` to a slot.

        Args:
            slot: Slot that holds leading tokens of `tokens`, or nothing.
            tokens: Tokens to be run in the slot.

        Returns:
            The number of tokens that the slot holds now.
        """
        source, shared = self._longest_match(tokens, range(self.slots))
        if shared > self.lengths[slot]:
            self._copy(source, slot, self.lengths[slot], shared)
        return self.lengths[slot]

    def free(self, slot: int) -> None:
        """Release a slot; its tokens become a cached prefix."""
        # A decode step may overwrite the position after the last one.
        self.truncate(slot, self.capacity - 1)
        self._last_used[slot] = next(self._now) if self.lengths[slot] else 0
        heapq.heappush(self._free, slot)

    def evict_all(self) -> None:
        """Evict the cached prefixes of all free slots."""
        for slot in self._free:
            self.truncate(slot, 0)
            self._last_used[slot] = 0

    def extend(self, slot: int, tokens: Sequence[int]) -> None:
        """Record tokens that the model ran at the next positions."""
        self._tokens[slot].extend(tokens)
        self.lengths[slot] += len(tokens)

    def truncate(self, slot: int, length: int) -> None:
        """Drop all positions from `length` on."""
        del self._tokens[slot][length:]
        self.lengths[slot] = len(self._tokens[slot])

    def fork(self, source: int, target: int, shared: int = 0) -> None:
        """Copy the content of `source` to `target`.

        Args:
            source: Slot to copy from.
            target: Slot of the same request, whose content is overwritten.
            shared: Number of leading positions that are equal in both already.
        """
        self._copy(source, target, shared, self.lengths[source])

    def take_copies(self) -> list[CacheCopy]:
        """Return the pending copies, to apply in order before the next run."""
        copies, self._copies = self._copies, []
        return copies

    def _copy(self, source: int, target: int, start: int, stop: int) -> None:
        self._tokens[target] = self._tokens[source][:stop]
        self.lengths[target] = stop
        self._copies.append(CacheCopy(source, target, start, stop))

    def _relocate(self, slot: int, kept: int) -> None:
        """Copy the prefix of an allocated slot over the least recently used.

        It stays where it is if most of it survives anyway, or if all others were used later.

        Args:
            slot: Slot that is about to be truncated.
            kept: Length to which it is truncated.
        """
        tokens = self._tokens[slot]
        others = (other for other in range(self.slots) if other != slot)
        twin, covered = self._longest_match(tokens, others)
        if self._is_mostly_kept(slot, max(kept, covered)):
            if covered > kept:
                self._last_used[twin] = max(self._last_used[twin], self._last_used[slot])
            return
        oldest = min(self._free, key=self._last_used.__getitem__, default=slot)
        if self._last_used[oldest] < self._last_used[slot]:
            self._copy(slot, oldest, 0, len(tokens))
            self._last_used[oldest] = self._last_used[slot]

    def _is_mostly_kept(self, slot: int, kept: int) -> bool:
        """Return whether `kept` positions of a slot are enough of it."""
        return self.lengths[slot] - kept <= _TOLERATED_LOSS * self.lengths[slot]

    def _longest_match(self, tokens: Sequence[int], slots: Iterable[int]) -> tuple[int, int]:
        """Return the slot with the longest prefix of `tokens`, and its length."""
        best, longest = 0, 0
        prefix = list(tokens)
        for slot in slots:
            held = self._tokens[slot]
            # One comparison rules most slots out.
            if held[: longest + 1] == prefix[: longest + 1]:
                shared = common_length(held, prefix)
                if shared > longest:
                    best, longest = slot, shared
        return best, longest


def common_length(one: list[int], other: list[int]) -> int:
    """Return the length of the common prefix, by bisection: slices compare fast."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
