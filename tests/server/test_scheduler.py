"""Who runs next."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from gpt2flow.server.kv_cache import SlotCache
from gpt2flow.server.scheduler import Chunk, Decode, Scheduler
from gpt2flow.server.sequence import FinishReason, Request, Sequence

IDS = itertools.count()


class Driver:
    """Runs a schedule the way the engine does, with tokens that mean nothing."""

    def __init__(self, slots: int = 4, chunk: int = 4) -> None:
        self.cache = SlotCache(slots, 1000)
        self.scheduler = Scheduler(self.cache, chunk)

    def add(self, prompt: int, *, width: int = 1, priority: int = 0) -> Request:
        number = next(IDS)
        request = Request(number, [number] * prompt, width, arrival=0.0, priority=priority)
        self.scheduler.add(request)
        return request

    def admit(self) -> list[Request]:
        admitted = self.scheduler.admit()
        for request in admitted:
            sequence = Sequence(list(request.prompt), len(request.prompt), request.slots[0], 0)
            request.sequences.append(sequence)
        return admitted

    def step(self) -> tuple[str, list[int]]:
        """Runs the next batch; returns its kind and the requests in it."""
        self.admit()
        batch = self.scheduler.schedule()
        assert batch is not None
        if isinstance(batch, Chunk):
            sequence = batch.sequence
            assert self.cache.lengths[sequence.slot] == batch.start
            self.cache.extend(sequence.slot, sequence.tokens[batch.start : batch.stop])
            if batch.stop == len(sequence.tokens):
                sequence.tokens.append(1)
            return f"chunk {batch.start}:{batch.stop}", [batch.request.id]
        for sequence in batch.sequences:
            self.cache.extend(sequence.slot, [1])
            sequence.tokens.append(1)
        return "decode", [request.id for request, _ in batch.parts]


def test_nothing_to_do() -> None:
    assert Driver().scheduler.schedule() is None


def test_a_prompt_is_run_in_chunks_then_decoded() -> None:
    driver = Driver()
    request = driver.add(10)
    kinds = [driver.step() for _ in range(5)]
    assert [kind for kind, _ in kinds] == [
        "chunk 0:4",
        "chunk 4:8",
        "chunk 8:10",
        "decode",
        "decode",
    ]
    assert {tuple(ids) for _, ids in kinds} == {(request.id,)}


def test_a_prompt_of_one_token_needs_no_chunk() -> None:
    driver = Driver()
    driver.add(1)
    assert driver.step()[0] == "decode"


def test_a_running_stream_waits_for_one_chunk_at_most() -> None:
    driver = Driver()
    running = driver.add(2)
    driver.step()
    long = driver.add(40)
    kinds = [driver.step() for _ in range(12)]
    waits = [ids == [long.id] for _, ids in kinds]
    assert not any(one and two for one, two in itertools.pairwise(waits))
    assert [running.id] in [ids for _, ids in kinds]


def test_forced_tokens_and_prompts_take_turns_with_decoding() -> None:
    driver = Driver()
    forced, decoding = driver.add(1), driver.add(1)
    driver.step()
    forced.sequences[0].tokens += [1] * 20
    long = driver.add(40)
    runs = [tuple(driver.step()[1]) for _ in range(6)]
    assert runs == [(forced.id,), (long.id,), (decoding.id,)] * 2


def test_all_that_lack_one_token_are_decoded_together() -> None:
    driver = Driver()
    requests = [driver.add(1) for _ in range(3)]
    assert driver.step() == ("decode", [request.id for request in requests])


def test_requests_wait_for_slots_in_order_of_arrival() -> None:
    driver = Driver(slots=2)
    first, second, third = (driver.add(1) for _ in range(3))
    assert driver.admit() == [first, second]
    driver.scheduler.remove(first)
    assert driver.admit() == [third]


def test_a_higher_priority_goes_first() -> None:
    driver = Driver(slots=1)
    running = driver.add(1)
    driver.admit()
    low, high = driver.add(1), driver.add(1, priority=5)
    driver.scheduler.remove(running)
    assert driver.admit() == [high]
    driver.scheduler.remove(high)
    assert driver.admit() == [low]


@given(st.lists(st.integers(-2, 2), max_size=12), st.sets(st.integers(0, 11)))
def test_whoever_leaves_the_order_of_the_others_stays(
    priorities: list[int], leaving: set[int]
) -> None:
    driver = Driver(slots=1)
    blocker = driver.add(1, priority=100)
    driver.admit()
    waiting = [driver.add(1, priority=priority) for priority in priorities]
    for at in leaving & set(range(len(waiting))):
        driver.scheduler.remove(waiting[at])
    expected = [each for at, each in enumerate(waiting) if at not in leaving]
    expected.sort(key=lambda request: (-request.priority, request.id))
    admitted = []
    running = blocker
    for _ in expected:
        driver.scheduler.remove(running)
        [running] = driver.admit()
        admitted.append(running)
    assert admitted == expected


def test_a_wide_request_is_not_overtaken() -> None:
    driver = Driver(slots=4)
    narrow = driver.add(1)
    driver.admit()
    wide, late = driver.add(1, width=4), driver.add(1)
    assert driver.admit() == []
    driver.scheduler.remove(narrow)
    assert driver.admit() == [wide]
    assert sorted(wide.slots) == [0, 1, 2, 3]
    driver.scheduler.remove(wide)
    assert driver.admit() == [late]


def test_removing_frees_slots_wherever_the_request_stands() -> None:
    driver = Driver(slots=1)
    running, waiting = driver.add(3), driver.add(3)
    driver.step()
    driver.scheduler.remove(waiting)
    driver.scheduler.remove(running)
    assert driver.cache.free_slots == 1
    assert list(driver.scheduler.requests) == []


def test_the_last_token_of_an_ended_sequence_is_not_run() -> None:
    driver = Driver()
    request = driver.add(3)
    driver.admit()
    sequence = request.sequences[0]
    sequence.tokens += [1, 1]
    sequence.finish(FinishReason.CONSTRAINT)
    batch = driver.scheduler.schedule()
    assert isinstance(batch, Chunk)
    assert batch.stop == 4


def test_sequences_of_one_request_adjoin() -> None:
    driver = Driver()
    first, second = driver.add(1, width=2), driver.add(1)
    driver.admit()
    twin = Sequence([1], 1, first.slots[1], 0)
    first.sequences.append(twin)
    batch = driver.scheduler.schedule()
    assert isinstance(batch, Decode)
    assert list(batch.sequences) == [*first.sequences, *second.sequences]
