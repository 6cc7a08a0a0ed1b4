"""Slots are handed out once, lowest first, and remember what they held while there is room."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2flow.server.engine.kv_cache import CacheCopy, SlotCache


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


def test_truncate_never_lengthens() -> None:
    cache = SlotCache(1, 10)
    cache.extend(0, range(5))
    cache.truncate(0, 8)
    assert cache.lengths == [5]
    cache.truncate(0, 2)
    assert cache.lengths == [2]


def test_a_fork_copies_what_is_not_shared() -> None:
    cache = SlotCache(2, 10)
    cache.extend(0, range(7))
    cache.extend(1, range(3))
    cache.fork(0, 1, shared=2)
    assert cache.take_copies() == [CacheCopy(source=0, target=1, start=2, stop=7)]
    assert cache.take_copies() == []
    assert cache.lengths == [7, 7]


@given(st.lists(st.integers(0, 4), max_size=40))
def test_no_slot_is_handed_out_twice(counts: list[int]) -> None:
    cache = SlotCache(6, 10)
    taken: list[int] = []
    for count in counts:
        if count == 0 and taken:
            cache.free(taken.pop(0))
        elif 0 < count <= cache.free_slots:
            taken += cache.allocate(count)
        assert len(set(taken)) == len(taken)
        assert cache.free_slots == 6 - len(taken)


# --- What slots remember --------------------------------------------------------------


def run(cache: SlotCache, text: str) -> tuple[int, int]:
    """Run a sequence, a letter a token, to its end; returns its slot and what was reused."""
    slot, reused = start(cache, text)
    cache.free(slot)
    return slot, reused


def start(cache: SlotCache, text: str) -> tuple[int, int]:
    tokens = [ord(letter) for letter in text]
    [slot] = cache.allocate(1, tokens[:-1])
    reused = cache.lengths[slot]
    cache.extend(slot, tokens[reused:])
    return slot, reused


def test_a_slot_is_taken_over_without_a_copy() -> None:
    cache = SlotCache(3, 100)
    assert run(cache, "instructions: one") == (0, 0)
    assert run(cache, "instructions: two") == (0, len("instructions: "))
    assert cache.take_copies() == []


def test_what_is_wanted_is_never_reused_as_a_whole() -> None:
    cache = SlotCache(3, 100)
    run(cache, "same")
    assert run(cache, "same") == (0, 3)


def test_the_longest_match_wins_wherever_it_is() -> None:
    cache = SlotCache(4, 100)
    slots = [start(cache, text)[0] for text in ("abcd....", "abcdefgh....", "abcdef..")]
    cache.free(slots[0])
    cache.take_copies()
    assert start(cache, "abcdefghijkl") == (0, 8)
    copies = cache.take_copies()
    # What slot 0 remembered was moved first: half of it would be lost.
    assert copies == [CacheCopy(0, 3, 0, 8), CacheCopy(1, 0, 0, 8)]


def test_a_match_in_a_slot_that_is_taken_anyway_is_preferred() -> None:
    cache = SlotCache(3, 100)
    first, _ = start(cache, "abcd")
    second, _ = start(cache, "abcd")
    cache.take_copies()
    cache.free(second)
    assert start(cache, "abcd") == (second, 3)
    assert cache.take_copies() == []
    assert first == 0


@pytest.mark.parametrize("before,forgotten", [("abcd", ""), ("abcde", "a"), ("abcdae", "b")])
def test_the_least_recently_used_makes_way(before: str, forgotten: str) -> None:
    for letter in set(before):
        cache = SlotCache(4, 100)
        for each in before:
            run(cache, each * 4)
        assert run(cache, letter * 4)[1] == (0 if letter in forgotten else 3)


def test_running_sequences_stay_in_the_lowest_slots() -> None:
    cache = SlotCache(8, 100)
    for text in ("aaaa", "bbbb", "cccc", "dddd", "aaaa", "cccc"):
        assert run(cache, text)[0] == 0


def test_ends_alone_are_not_remembered() -> None:
    cache = SlotCache(3, 100)
    run(cache, "other")
    for end in "abcdefgh":
        assert run(cache, f"long instructions, then {end}")[1] in {0, 24}
    assert run(cache, "other")[1] == 4


def test_a_wide_request_has_its_prefix_in_the_first_slot_only() -> None:
    cache = SlotCache(4, 100)
    blocker, _ = start(cache, "....")
    run(cache, "abcd")
    cache.free(blocker)
    slots = cache.allocate(3, [ord(letter) for letter in "abcz"])
    assert slots == [1, 0, 2]
    assert [cache.lengths[slot] for slot in slots] == [3, 0, 0]


def test_what_came_to_be_since_is_copied() -> None:
    cache = SlotCache(2, 100)
    tokens = list(range(9))
    one, two = cache.allocate(1, tokens), cache.allocate(1, tokens)
    assert cache.reuse(two[0], tokens) == 0
    cache.extend(one[0], tokens[:6])
    assert cache.reuse(two[0], tokens) == 6
    assert cache.take_copies() == [CacheCopy(0, 1, 0, 6)]


def test_the_last_position_is_not_remembered() -> None:
    cache = SlotCache(1, 4)
    assert run(cache, "abcd") == (0, 0)
    assert cache.lengths == [3]


def test_forgetting() -> None:
    cache = SlotCache(2, 100)
    live, _ = start(cache, "abcd")
    run(cache, "efgh")
    cache.forget()
    assert cache.lengths == [4, 0]
    assert run(cache, "efgh")[1] == 0
    assert run(cache, "abcd")[1] == 3
    assert live == 0


class Arrays:
    """What the model's arrays hold: a decode step writes rubbish after every row of its span."""

    def __init__(self, cache: SlotCache) -> None:
        self.cache = cache
        self.rows = [[-1] * cache.capacity for _ in range(cache.slots)]

    def catch_up(self) -> None:
        for copy in self.cache.take_copies():
            span = slice(copy.start, copy.stop)
            self.rows[copy.target][span] = self.rows[copy.source][span]

    def decode(self, running: dict[int, list[int]]) -> None:
        self.catch_up()
        for slot in range(max(running, default=-1) + 1):
            self.rows[slot][self.cache.lengths[slot]] = -1
        for slot, tokens in running.items():
            at = self.cache.lengths[slot]
            if at + 1 < len(tokens):
                self.rows[slot][at] = tokens[at]
                self.cache.extend(slot, tokens[at : at + 1])

    def check(self, running: dict[int, list[int]]) -> None:
        self.catch_up()
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
    st.tuples(st.sampled_from(["free", "cut", "forget", "late"]), texts),
)


@settings(max_examples=300)
@given(st.integers(1, 5), st.lists(steps, max_size=60))
def test_what_is_remembered_is_what_the_arrays_hold(
    slots: int, script: list[tuple[str, list[int]]]
) -> None:
    cache = SlotCache(slots, 8)
    arrays, running = Arrays(cache), dict[int, list[int]]()
    for kind, text in script:
        some = next((slot for slot in running if slot >= len(text) - 1), None)
        if kind == "start" and cache.free_slots:
            [slot] = cache.allocate(1, text[:-1])
            running[slot] = text
        elif kind == "decode":
            arrays.decode(running)
        elif kind == "forget":
            cache.forget()
        elif some is not None and kind == "free":
            cache.free(some)
            del running[some]
        elif some is not None and kind == "cut":
            cache.truncate(some, len(text) - 1)
        elif some is not None and kind == "late":
            cache.reuse(some, running[some][:-1])
        arrays.check(running)
