"""Slots are handed out once, lowest first, and forget what they held."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2flow.server.kv_cache import SlotCache
from gpt2flow.server.sequence import CacheCopy


def test_the_lowest_slots_come_first() -> None:
    cache = SlotCache(4, 10)
    assert cache.allocate(3) == [0, 1, 2]
    cache.free(1)
    cache.free(0)
    assert cache.allocate(2) == [0, 1]


def test_more_than_there_are_is_an_error() -> None:
    cache = SlotCache(2, 10)
    cache.allocate(1)
    with pytest.raises(ValueError, match="2 slots asked for, 1 free"):
        cache.allocate(2)
    assert cache.free_slots == 1


def test_a_freed_slot_is_empty() -> None:
    cache = SlotCache(1, 10)
    [slot] = cache.allocate(1)
    cache.extend(slot, 5)
    cache.free(slot)
    assert cache.lengths == [0]


def test_truncate_never_lengthens() -> None:
    cache = SlotCache(1, 10)
    cache.extend(0, 5)
    cache.truncate(0, 8)
    assert cache.lengths == [5]
    cache.truncate(0, 2)
    assert cache.lengths == [2]


def test_a_fork_copies_what_is_not_shared() -> None:
    cache = SlotCache(2, 10)
    cache.extend(0, 7)
    cache.extend(1, 3)
    assert cache.fork(0, 1, shared=2) == CacheCopy(source=0, target=1, start=2, stop=7)
    assert cache.lengths == [7, 7]


@given(st.lists(st.integers(0, 4), max_size=40))
def test_no_slot_is_handed_out_twice(counts: list[int]) -> None:
    cache = SlotCache(6, 10)
    taken: list[int] = []
    for count in counts:
        if count == 0 and taken:
            cache.free(taken.pop(0))
        elif count <= cache.free_slots:
            taken += cache.allocate(count)
        assert len(set(taken)) == len(taken)
        assert cache.free_slots == 6 - len(taken)
