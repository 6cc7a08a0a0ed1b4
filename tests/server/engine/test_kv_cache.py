"""Slot cache: allocation, forks, and reuse of cached prefixes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from gpt2flow.server.engine.kv_cache import CacheCopy, SlotCache


def test_free_slots_without_a_prefix_are_allocated_first() -> None:
    cache = SlotCache(4, 10)
    assert cache.allocate(3) == [0, 1, 2]
    cache.free(1)
    cache.free(0)
    assert cache.allocate(2) == [0, 1]


def test_allocating_more_slots_than_are_free_is_an_error() -> None:
    cache = SlotCache(2, 10)
    cache.allocate(1)
    with pytest.raises(ValueError, match="2 slots requested, 1 free"):
        cache.allocate(2)
    assert cache.free_slots == 1


def test_truncate_never_extends_a_slot() -> None:
    cache = SlotCache(1, 10)
    cache.extend(0, range(5))
    cache.truncate(0, 8)
    assert cache.lengths == [5]
    cache.truncate(0, 2)
    assert cache.lengths == [2]


def test_a_fork_copies_only_positions_that_are_not_shared() -> None:
    cache = SlotCache(2, 10)
    cache.extend(0, range(7))
    cache.extend(1, range(3))
    cache.fork(0, 1, shared=2)
    assert cache.take_copies() == [CacheCopy(source=0, target=1, start=2, stop=7)]
    assert cache.take_copies() == []
    assert cache.lengths == [7, 7]


@given(st.lists(st.integers(0, 4), max_size=40))
def test_no_slot_is_allocated_twice(counts: list[int]) -> None:
    cache = SlotCache(6, 10)
    taken: list[int] = []
    for count in counts:
        if count == 0 and taken:
            cache.free(taken.pop(0))
        elif 0 < count <= cache.free_slots:
            taken += cache.allocate(count)
        assert len(set(taken)) == len(taken)
        assert cache.free_slots == 6 - len(taken)


# --- Prefix reuse ---------------------------------------------------------------------


def run(cache: SlotCache, text: str) -> tuple[int, int]:
    """Run a sequence of one token per letter to its end.

    Returns:
        Its slot, and the number of reused positions.
    """
    slot, reused = start(cache, text)
    cache.free(slot)
    return slot, reused


def start(cache: SlotCache, text: str) -> tuple[int, int]:
    """Run a sequence as `run` does, but keep its slot."""
    tokens = [ord(letter) for letter in text]
    [slot] = cache.allocate(1, tokens[:-1])
    reused = cache.lengths[slot]
    cache.extend(slot, tokens[reused:])
    return slot, reused


def test_a_free_slot_is_reused_without_a_copy() -> None:
    cache = SlotCache(3, 100)
    assert run(cache, "instructions: one") == (0, 0)
    assert run(cache, "instructions: two") == (0, len("instructions: "))
    assert cache.take_copies() == []


def test_the_whole_prompt_is_never_reused() -> None:
    cache = SlotCache(3, 100)
    run(cache, "same")
    assert run(cache, "same") == (0, 3)


def test_the_longest_match_is_copied_from_any_slot() -> None:
    cache = SlotCache(4, 100)
    slots = [start(cache, text)[0] for text in ("abcd....", "abcdefgh....", "abcdef..")]
    cache.free(slots[0])
    cache.take_copies()
    assert start(cache, "abcdefghijkl") == (3, 8)
    assert cache.take_copies() == [CacheCopy(1, 3, 0, 8)]


def test_a_match_in_the_allocated_slot_is_preferred() -> None:
    cache = SlotCache(3, 100)
    first, _ = start(cache, "abcd")
    second, _ = start(cache, "abcd")
    cache.take_copies()
    cache.free(second)
    assert start(cache, "abcd") == (second, 3)
    assert cache.take_copies() == []
    assert first == 0


@pytest.mark.parametrize("before,evicted", [("abcd", ""), ("abcde", "a"), ("abcdae", "b")])
def test_the_least_recently_used_prefix_is_evicted(before: str, evicted: str) -> None:
    for letter in set(before):
        cache = SlotCache(4, 100)
        for each in before:
            run(cache, each * 4)
        assert run(cache, letter * 4)[1] == (0 if letter in evicted else 3)


def test_prompts_that_differ_only_at_the_end_evict_no_other_prefix() -> None:
    cache = SlotCache(3, 100)
    run(cache, "other")
    for end in "abcdefgh":
        assert run(cache, f"long instructions, then {end}")[1] in {0, 24}
    assert run(cache, "other")[1] == 4


def test_a_request_for_several_slots_has_its_prefix_in_the_first_only() -> None:
    cache = SlotCache(4, 100)
    blocker, _ = start(cache, "....")
    run(cache, "abcd")
    cache.free(blocker)
    slots = cache.allocate(3, [ord(letter) for letter in "abcz"])
    assert slots == [1, 2, 3]
    assert [cache.lengths[slot] for slot in slots] == [3, 0, 0]


def test_positions_cached_after_allocation_are_copied() -> None:
    cache = SlotCache(2, 100)
    tokens = list(range(9))
    one, two = cache.allocate(1, tokens), cache.allocate(1, tokens)
    assert cache.reuse(two[0], tokens) == 0
    cache.extend(one[0], tokens[:6])
    assert cache.reuse(two[0], tokens) == 6
    assert cache.take_copies() == [CacheCopy(0, 1, 0, 6)]


def test_the_whole_context_can_be_cached() -> None:
    cache = SlotCache(1, 4)
    assert run(cache, "abcd") == (0, 0)
    assert cache.lengths == [4]


def test_evicting_all_prefixes_keeps_running_sequences() -> None:
    cache = SlotCache(2, 100)
    live, _ = start(cache, "abcd")
    run(cache, "efgh")
    cache.evict_all()
    assert cache.lengths == [4, 0]
    assert run(cache, "efgh")[1] == 0
    assert run(cache, "abcd")[1] == 3
    assert live == 0


class ModelArrays:
    """Fake of the model's cache arrays, with one token id per position.

    A decode step writes garbage after the last position of every slot in its batch.
    """

    def __init__(self, cache: SlotCache) -> None:
        self.cache = cache
        self.rows = [[-1] * cache.capacity for _ in range(cache.slots)]

    def apply_copies(self) -> None:
        for copy in self.cache.take_copies():
            span = slice(copy.start, copy.stop)
            self.rows[copy.target][span] = self.rows[copy.source][span]

    def decode(self, running: dict[int, list[int]]) -> None:
        self.apply_copies()
        for slot in range(max(running, default=-1) + 1):
            self.rows[slot][self.cache.lengths[slot]] = -1
        for slot, tokens in running.items():
            at = self.cache.lengths[slot]
            if at + 1 < len(tokens):
                self.rows[slot][at] = tokens[at]
                self.cache.extend(slot, tokens[at : at + 1])

    def check(self, running: dict[int, list[int]]) -> None:
        self.apply_copies()
        for slot, length in enumerate(self.cache.lengths):
            assert length < self.cache.capacity
            assert self.rows[slot][:length] == self.cache._tokens[slot]
        for slot, tokens in running.items():
            assert self.rows[slot][: self.cache.lengths[slot]] == tokens[: self.cache.lengths[slot]]


texts = st.lists(st.integers(0, 1), min_size=1, max_size=8)
steps: st.SearchStrategy[tuple[str, list[int]]] = st.one_of(
    st.tuples(st.just("start"), texts),
    st.tuples(st.just("start"), texts),
    st.tuples(st.just("decode"), st.just([])),
    st.tuples(st.sampled_from(["free", "cut", "evict", "late"]), texts),
)


@settings(max_examples=examples(300))
@given(st.integers(1, 5), st.lists(steps, max_size=60))
def test_cached_tokens_match_the_arrays(slots: int, script: list[tuple[str, list[int]]]) -> None:
    cache = SlotCache(slots, 8)
    arrays, running = ModelArrays(cache), dict[int, list[int]]()
    for kind, text in script:
        some = next((slot for slot in running if slot >= len(text) - 1), None)
        if kind == "start" and cache.free_slots:
            [slot] = cache.allocate(1, text[:-1])
            running[slot] = text
        elif kind == "decode":
            arrays.decode(running)
        elif kind == "evict":
            cache.evict_all()
        elif some is not None and kind == "free":
            cache.free(some)
            del running[some]
        elif some is not None and kind == "cut":
            cache.truncate(some, len(text) - 1)
        elif some is not None and kind == "late":
            cache.reuse(some, running[some][:-1])
        arrays.check(running)
