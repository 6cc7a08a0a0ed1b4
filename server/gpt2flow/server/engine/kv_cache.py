"""Slots of the KV cache: bookkeeping of their tokens, without tensors.

A released slot keeps its tokens as a cached prefix. A prompt that starts with them need not run
them again.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# A sequence takes over the slot of a cached prefix, instead of a copy, if no more than this share
# of the prefix is lost. Of prompts that differ in their last tokens alone, one copy is enough.
_TOLERATED_LOSS = 0.25


class CacheCopy(NamedTuple):
    """Copy of positions [start, stop) from one slot to another."""

    source: int
    target: int
    start: int
    stop: int


class SlotCache:
    """Slots of equal capacity, each for the cache of one sequence.

    A new sequence gets the free slot that was used least recently, which evicts its prefix.

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
        self._free = set(range(self.slots))
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
        """Allocate free slots, the least recently used first.

        The first one returned holds the longest cached prefix of `tokens`; the others are empty.

        Args:
            count: Number of slots, at least one.
            tokens: Tokens to be run in the first slot.

        Raises:
            ValueError: Fewer are free; check `free_slots` first.
        """
        if count > len(self._free):
            raise ValueError(f"{count} slots requested, {len(self._free)} free")
        # Of equal matches, a free slot needs no copy.
        source, shared = self._longest_match(tokens, (*sorted(self._free), *range(self.slots)))
        if shared:
            self._last_used[source] = next(self._now)
        taken = self._least_recently_used(count, source, shared)
        for slot in taken:
            self._free.remove(slot)
            self.truncate(slot, shared if slot == source else 0)
        if shared and source != taken[0]:
            self._copy(source, taken[0], 0, shared)
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
        self._last_used[slot] = next(self._now) if self.lengths[slot] else 0
        self._free.add(slot)

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

    def _least_recently_used(self, count: int, source: int, shared: int) -> list[int]:
        """Return free slots to allocate, `source` first if it is among them.

        Args:
            count: Number of slots.
            source: Slot of the longest cached prefix.
            shared: Length of that prefix.
        """
        lost = self.lengths[source] - shared
        taken_over = bool(shared) and lost <= _TOLERATED_LOSS * self.lengths[source]
        order = sorted(self._free, key=lambda slot: (self._last_used[slot], slot))
        if taken_over and source in self._free:
            order.sort(key=lambda slot: slot != source)
        return sorted(order[:count], key=lambda slot: not (shared and slot == source))

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
