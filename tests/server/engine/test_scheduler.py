"""Order of chunks, and what a run has."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from tests.support.schedule_driver import ScheduleDriver

from gpt2flow.server.engine.scheduler import FIRST_COME_EVERY
from gpt2flow.server.engine.sequence import Sequence

BUDGET = 4


def test_an_idle_scheduler_has_no_batch() -> None:
    assert ScheduleDriver().scheduler.schedule() == []


def test_a_prompt_is_run_in_chunks_before_decoding() -> None:
    driver = ScheduleDriver()
    number = driver.add(10).id
    spans = [span for _ in range(5) for span in driver.step()]
    assert spans == [
        (number, start, stop) for start, stop in [(0, 4), (4, 8), (8, 10), (10, 11), (11, 12)]
    ]


def test_a_stream_gets_a_token_in_every_run() -> None:
    driver = ScheduleDriver()
    stream = driver.add(1)
    driver.step()
    long = driver.add(40)
    for step in range(10):
        at = 4 * step
        assert driver.step() == [(stream.id, step + 1, step + 2), (long.id, at, at + 4)]


def test_chunks_of_several_prompts_share_a_run() -> None:
    driver = ScheduleDriver(budget=10)
    first, second, third = (driver.add(length) for length in (3, 4, 5))
    assert driver.step() == [(first.id, 0, 3), (second.id, 0, 4), (third.id, 0, 3)]


def test_forced_tokens_share_the_run_of_streams_and_prompts() -> None:
    driver = ScheduleDriver(budget=10)
    forced, decoding = driver.add(1), driver.add(1)
    driver.step()
    forced.sequences[0].tokens += [1] * 5
    long = driver.add(40)
    assert driver.step() == [(decoding.id, 1, 2), (forced.id, 1, 7), (long.id, 0, 4)]


def test_drafts_take_their_part_of_the_budget_first() -> None:
    driver = ScheduleDriver(budget=5)
    one, other = driver.add(1), driver.add(1)
    driver.step()
    one.sequences[0].drafts, other.sequences[0].drafts = [7, 8, 9], [7, 8, 9]
    long = driver.add(40)
    assert driver.step() == [(one.id, 1, 5), (other.id, 1, 4)]
    one.sequences[0].drafts.clear()
    other.sequences[0].drafts.clear()
    driver.cache.truncate(one.sequences[0].slot, 1)
    driver.cache.truncate(other.sequences[0].slot, 1)
    assert (long.id, 0, 5) in driver.step()


def test_the_last_token_of_a_finished_sequence_is_not_run() -> None:
    driver = ScheduleDriver()
    request = driver.add(3)
    driver.admit()
    sequence = request.sequences[0]
    sequence.tokens += [1, 1]
    sequence.grows = False
    [span] = driver.scheduler.schedule()
    assert span.stop == 4


def test_sequences_in_lockstep_wait_for_each_other() -> None:
    driver = ScheduleDriver()
    request = driver.add(1, slots_needed=2)
    driver.admit()
    request.lockstep = True
    request.sequences.append(Sequence([1] * 6, 6, request.slots[1], 5))
    batches = []
    for _ in range(3):
        batches.append(driver.scheduler.schedule())
        for span in batches[-1]:
            driver.cache.extend(span.sequence.slot, span.tokens)
    assert [[(span.start, span.stop) for span in batch] for batch in batches] == [
        [(0, 4)],
        [(4, 5)],
        [(0, 1), (5, 6)],
    ]
    assert [span.sequence for span in batches[-1]] == request.sequences


# --- Chunks of several prompts --------------------------------------------------------


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    driver = ScheduleDriver()
    long = driver.add(1000)
    assert driver.step() == [(long.id, 0, 4)]
    short = driver.add(7)
    assert driver.step() == [(short.id, 0, 4)]
    assert driver.step()[0] == (short.id, 4, 7)
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
    runs = 0
    while long.sequences[0].new_tokens == 0:
        driver.add(4, priority=5) if len(driver.running) < 4 else None
        driver.step()
        runs += 1
        for request in driver.running:
            if request.sequences[0].new_tokens and request is not long:
                driver.scheduler.remove(request)
                break
    assert runs == FIRST_COME_EVERY * 10


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 30), st.integers(0, 2)), min_size=1))
def test_prefill_delay_is_bounded(arrivals: list[tuple[int, int, int]]) -> None:
    """Prompts wait for a bounded number of runs, streams for none."""
    driver = ScheduleDriver(slots=len(arrivals) + 1)
    stream = driver.add(1)
    driver.step()
    due = list(itertools.accumulate(delay for delay, _, _ in arrivals))
    limits: dict[int, int] = {}  # Request id to the most runs before its prompt is done.
    for step in range(due[-1] + sum(length for _, length, _ in arrivals) * 2):
        for at, (_, length, priority) in zip(due, arrivals, strict=True):
            if at == step:
                driver.add(length, priority=priority)
        for request in driver.admit():
            lacks = [
                len(each.prompt) - driver.cache.lengths[each.slots[0]] for each in driver.running
            ]
            lacks = lacks[: driver.running.index(request) + 1]
            needed = sum(-(-each // BUDGET) for each in lacks if each > 0)
            limits[request.id] = step + FIRST_COME_EVERY * needed
        spans = driver.step()
        assert stream.id in [number for number, _, _ in spans]
        chunks = [stop - start for _, start, stop in spans if stop - start > 1]
        assert sum(chunks) <= BUDGET
        for request in list(driver.running):
            if request is not stream and request.sequences[0].new_tokens:
                assert step <= limits[request.id]
                driver.scheduler.remove(request)
    assert driver.running == [stream]


def test_equal_prompts_that_arrive_together_share_each_chunk() -> None:
    driver = ScheduleDriver()
    requests = [driver.add(0, tokens=range(1, 22)) for _ in range(3)]
    driver.admit()
    while any(request.sequences[0].new_tokens == 0 for request in requests):
        driver.step()
    assert sum(request.cached_tokens for request in requests) == 2 * 20
