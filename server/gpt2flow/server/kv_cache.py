"""Which slot of the KV cache holds what: bookkeeping only, no tensors."""

import heapq

from gpt2flow.server.sequence import CacheCopy


class SlotCache:
    """Slots of equal capacity, each with the keys and values of one sequence.

    Attributes:
        slots: How many there are.
        capacity: Positions in each.
        lengths: By slot, how many positions are filled; 0 in a free one.
    """

    def __init__(self, slots: int, capacity: int) -> None:
        self.slots = slots
        self.capacity = capacity
        self.lengths = [0] * slots
        self._free = list(range(slots))

    @property
    def free_slots(self) -> int:
        """How many slots are free."""
        return len(self._free)

    def allocate(self, count: int) -> list[int]:
        """Takes free slots, the lowest first: a decode step runs over all rows up to the last.

        Raises:
            ValueError: Fewer are free; ask `free_slots` first.
        """
        if count > len(self._free):
            raise ValueError(f"{count} slots asked for, {len(self._free)} free")
        return [heapq.heappop(self._free) for _ in range(count)]

    def free(self, slot: int) -> None:
        """Gives a slot back."""
        self.lengths[slot] = 0
        heapq.heappush(self._free, slot)

    def extend(self, slot: int, count: int) -> None:
        """Notes that the model wrote `count` more positions."""
        self.lengths[slot] += count

    def truncate(self, slot: int, length: int) -> None:
        """Forgets all positions from `length` on."""
        self.lengths[slot] = min(self.lengths[slot], length)

    def fork(self, source: int, target: int, shared: int = 0) -> CacheCopy:
        """Makes `target` hold what `source` holds.

        Args:
            source: A slot that stays as it is.
            target: A slot in the same hands, whose content is given up.
            shared: How many leading positions are equal in both already.

        Returns:
            The copy that the model's arrays need before they run again.
        """
        self.lengths[target] = self.lengths[source]
        return CacheCopy(source, target, shared, self.lengths[source])
