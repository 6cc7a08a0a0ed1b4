"""Order of chunks and decode steps."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from tests.support.schedule_driver import ScheduleDriver

from gpt2flow.server.engine.scheduler import FIRST_COME_EVERY, Chunk, Decode
from gpt2flow.server.engine.sequence import Sequence


def test_an_idle_scheduler_has_no_batch() -> None:
    assert ScheduleDriver().scheduler.schedule() is None


def test_a_prompt_is_run_in_chunks_before_decoding() -> None:
    driver = ScheduleDriver()
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
    driver = ScheduleDriver()
    driver.add(1)
    assert driver.step()[0] == "decode"


def test_a_running_stream_waits_for_one_chunk_at_most() -> None:
    driver = ScheduleDriver()
    running = driver.add(2)
    driver.step()
    long = driver.add(40)
    kinds = [driver.step() for _ in range(12)]
    delayed = [ids == [long.id] for _, ids in kinds]
    assert not any(one and two for one, two in itertools.pairwise(delayed))
    assert [running.id] in [ids for _, ids in kinds]


def test_forced_tokens_prompts_and_decoding_alternate() -> None:
    driver = ScheduleDriver()
    forced, decoding = driver.add(1), driver.add(1)
    driver.step()
    forced.sequences[0].tokens += [1] * 20
    long = driver.add(40)
    runs = [tuple(driver.step()[1]) for _ in range(6)]
    assert runs == [(forced.id,), (long.id,), (decoding.id,)] * 2


def test_all_sequences_that_lack_one_token_are_decoded_together() -> None:
    driver = ScheduleDriver()
    requests = [driver.add(1) for _ in range(3)]
    assert driver.step() == ("decode", [request.id for request in requests])


def test_the_last_token_of_a_finished_sequence_is_not_run() -> None:
    driver = ScheduleDriver()
    request = driver.add(3)
    driver.admit()
    sequence = request.sequences[0]
    sequence.tokens += [1, 1]
    sequence.grows = False
    batch = driver.scheduler.schedule()
    assert isinstance(batch, Chunk)
    assert batch.stop == 4


def test_sequences_of_one_request_are_adjacent() -> None:
    driver = ScheduleDriver()
    first, second = driver.add(1, slots_needed=2), driver.add(1)
    driver.admit()
    twin = Sequence([1], 1, first.slots[1], 0)
    first.sequences.append(twin)
    batch = driver.scheduler.schedule()
    assert isinstance(batch, Decode)
    assert list(batch.sequences) == [*first.sequences, *second.sequences]


def test_sequences_in_lockstep_wait_for_each_other() -> None:
    driver = ScheduleDriver()
    request = driver.add(1, slots_needed=2)
    driver.admit()
    request.lockstep = True
    request.sequences.append(Sequence([1] * 6, 6, request.slots[1], 5))
    batches = []
    for _ in range(3):
        batch = driver.scheduler.schedule()
        batches.append(batch)
        if isinstance(batch, Chunk):
            driver.cache.extend(batch.sequence.slot, [1] * (batch.stop - batch.start))
    one, two, last = batches
    assert isinstance(one, Chunk)
    assert isinstance(two, Chunk)
    assert [(each.start, each.stop) for each in (one, two)] == [(0, 4), (4, 5)]
    assert isinstance(last, Decode)
    assert list(last.sequences) == request.sequences


# --- Chunks of several prompts --------------------------------------------------------


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    driver = ScheduleDriver()
    long = driver.add(1000)
    assert driver.step() == ("chunk 0:4", [long.id])
    short = driver.add(7)
    assert driver.chunks(2) == [short.id, short.id]
    assert short.sequences[0].new_tokens == 1


def test_the_prompt_of_a_higher_priority_is_run_first() -> None:
    driver = ScheduleDriver()
    low, high = driver.add(5), driver.add(40, priority=1)
    assert driver.chunks(3) == [high.id] * 3
    assert low.sequences[0].new_tokens == 0


def test_a_long_prompt_gets_its_share_among_higher_priorities() -> None:
    driver = ScheduleDriver(slots=4)
    long = driver.add(40)
    driver.admit()
    chunks: list[int] = []
    while long.sequences[0].new_tokens == 0:
        driver.add(4, priority=5) if len(driver.running) < 4 else None
        chunks += driver.chunks(1)
        for request in driver.running:
            if request.sequences[0].new_tokens and request is not long:
                driver.scheduler.remove(request)
                break
    assert chunks.count(long.id) == 10
    assert len(chunks) == FIRST_COME_EVERY * 10


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 30), st.integers(0, 2)), min_size=1))
def test_prefill_delay_is_bounded(arrivals: list[tuple[int, int, int]]) -> None:
    """Prompts wait for a bounded number of chunks, streams for one."""
    driver = ScheduleDriver(slots=len(arrivals) + 1)
    stream = driver.add(1)
    driver.step()
    due = list(itertools.accumulate(delay for delay, _, _ in arrivals))
    kinds: list[str] = []
    limits: dict[int, int] = {}  # Request id to the most chunks before its prompt is done.
    for step in range(due[-1] + sum(length for _, length, _ in arrivals) * 2):
        for at, (_, length, priority) in zip(due, arrivals, strict=True):
            if at == step:
                driver.add(length, priority=priority)
        for request in driver.admit():
            lacks = [
                len(each.prompt) - driver.cache.lengths[each.slots[0]] for each in driver.running
            ]
            lacks = lacks[: driver.running.index(request) + 1]
            needed = sum(-(-each // 4) for each in lacks if each > 0)
            limits[request.id] = kinds.count("chunk") + FIRST_COME_EVERY * needed
        kind, ids = driver.step()
        kinds.append(kind.split()[0])
        assert kind != "decode" or stream.id in ids
        for request in driver.running:
            if request is not stream and request.sequences[0].new_tokens:
                assert kinds.count("chunk") <= limits[request.id]
                driver.scheduler.remove(request)
    assert driver.running == [stream]
    assert ("chunk", "chunk") not in set(itertools.pairwise(kinds))


def test_equal_prompts_that_arrive_together_share_each_chunk() -> None:
    driver = ScheduleDriver()
    requests = [driver.add(0, tokens=range(1, 22)) for _ in range(3)]
    driver.admit()
    while any(request.sequences[0].new_tokens == 0 for request in requests):
        driver.step()
    assert sum(request.cached_tokens for request in requests) == 2 * 20
