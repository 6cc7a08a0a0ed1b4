"""A request that cannot start in time is refused, and no other."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from tests.server.conftest import Bench
from tests.support.generation_params import PROMPT, greedy

from gpt2flow.server.engine.forecast import CHECK_SECONDS, OPTIMISM, Forecast
from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.results import GenerationResult
from gpt2flow.server.engine.sequence import FinishReason, Request
from gpt2flow.server.engine.task import Task
from gpt2flow.server.errors import TimeLimitError

MakeBench = Callable[..., Bench]


def measured(bench: Bench, *, hold: float = 0.0, token: float = 0.0) -> Forecast:
    forecast = bench.engine._forecast
    forecast.note_held(hold, 1)
    forecast.note_prompt(token * 1000, 1000)
    return forecast


def ask(bench: Bench, deadline: float | None = None, *, partial: bool = False) -> Task:
    params = greedy(20, ignore_eos=True, return_partial_on_time_limit=partial)
    return bench.add(bench.task(PROMPT, params, deadline=deadline))


def test_a_deadline_that_has_passed_is_refused_at_once(bench: Bench) -> None:
    bench.now = 3.0
    late = ask(bench, 2.5)
    bench.step()
    outcome = bench.outcome(late)
    assert isinstance(outcome, TimeLimitError)
    assert late.request.started is None


def test_who_cannot_start_in_time_is_refused_at_once(make_bench: MakeBench) -> None:
    bench = make_bench(1)
    measured(bench, hold=10.0)
    ask(bench)
    ask(bench)
    bench.step()
    # Two slots are to be given back before its turn: the first for nothing, the other 10 s.
    late, in_time = ask(bench, 4.9), ask(bench, 10.1)
    bench.step()
    outcome = bench.outcome(late)
    assert isinstance(outcome, TimeLimitError)
    assert "would wait 20.000 s for its first token, its time is up in 4.900 s" in str(outcome)
    assert not bench.events[in_time.request.id]
    bench.finish()
    assert isinstance(bench.outcome(in_time), GenerationResult)


def test_who_waits_is_refused_as_soon_as_it_is_too_late(make_bench: MakeBench) -> None:
    bench = make_bench(1)
    measured(bench, hold=10.0)
    ask(bench)
    ask(bench)
    waiting = ask(bench, 6.0)
    bench.step()
    assert not bench.events[waiting.request.id]
    bench.now = 0.9
    bench.step()
    assert not bench.events[waiting.request.id]
    bench.now = 1.0 + 2 * CHECK_SECONDS
    bench.step()
    assert isinstance(bench.outcome(waiting), TimeLimitError)
    bench.finish()


def test_a_long_prompt_counts_but_what_the_cache_knows_does_not(make_bench: MakeBench) -> None:
    bench = make_bench(2)
    bench.run(PROMPT, greedy(1))
    measured(bench, token=100.0)
    ask(bench)
    ask(bench)
    known = ask(bench, 80.0)
    unknown = bench.add(bench.task(PROMPT[::-1], greedy(1), deadline=80.0))
    bench.step()
    assert isinstance(bench.outcome(unknown), TimeLimitError)
    assert not bench.events[known.request.id]
    bench.finish()


def test_short_chunks_do_not_tell_what_a_token_costs(make_bench: MakeBench) -> None:
    bench = make_bench(slots=1)
    ask(bench)
    bench.step()
    forecast = measured(bench, token=0.001)
    for _ in range(100):
        forecast.note_prompt(0.1, 1)
    waiting = ask(bench, bench.now + 0.001 * len(PROMPT))
    bench.step()
    assert waiting.request.id in bench.engine._tasks


def test_nobody_is_refused_who_has_slots(make_bench: MakeBench) -> None:
    bench = make_bench(2)
    measured(bench, hold=1000.0, token=1000.0)
    both = [ask(bench, 1.0), ask(bench, 1.0)]
    bench.finish()
    assert all(isinstance(bench.outcome(task), GenerationResult) for task in both)


def test_nobody_is_refused_before_anything_was_measured(make_bench: MakeBench) -> None:
    bench = make_bench(1)
    tasks = [ask(bench, 0.001) for _ in range(5)]
    bench.finish()
    assert all(isinstance(bench.outcome(task), GenerationResult) for task in tasks)


def test_whoever_takes_what_there_is_waits_to_the_end(make_bench: MakeBench) -> None:
    bench = make_bench(1)
    measured(bench, hold=100.0)
    ask(bench)
    ask(bench)
    patient = ask(bench, 1.0, partial=True)
    bench.step()
    assert not bench.events[patient.request.id]
    bench.now = 1.0
    bench.step()
    [candidate] = bench.result(patient).candidates
    assert candidate.finish_reason is FinishReason.TIME_LIMIT
    assert candidate.token_ids == ()
    bench.finish()


def test_what_is_measured_is_how_long_slots_are_held(make_bench: MakeBench) -> None:
    bench = make_bench(2)
    tasks = [ask(bench), ask(bench)]
    while bench.engine.busy:
        bench.now += 0.5
        bench.step()
    held = [task.result(bench.now).timing.total for task in tasks]
    assert bench.engine.slot_seconds > 0
    assert bench.engine.slot_seconds <= max(held) / 2


@given(
    st.lists(st.tuples(st.integers(1, 3), st.none() | st.floats(0.1, 50)), max_size=12),
    st.integers(0, 3),
    st.floats(0.1, 10),
)
def test_refusals_do_not_count_for_those_behind_them(
    wanted: list[tuple[int, float | None]], taken: int, hold: float
) -> None:
    """What is left of the queue holds nobody who would be refused in it, by the stated rule."""
    cache = SlotCache(3, 100)
    if taken:
        cache.allocate(taken)
    forecast = Forecast(cache)
    forecast.note_held(hold, 1)
    queue = [
        Request(i, [1], width, arrival=0.0, deadline=deadline)
        for i, (width, deadline) in enumerate(wanted)
    ]
    late = dict(forecast.late(queue, 0.0))
    lacking = -cache.free_slots
    for request in queue:
        lacking += request.slots_needed
        allowed = request.deadline is None or lacking <= 0
        if not allowed:
            allowed = OPTIMISM * ((lacking - 1) * forecast.slot_seconds) <= (request.deadline or 0)
        assert allowed == (request not in late)
        if request in late:
            assert late[request] >= (request.deadline or 0)
            lacking -= request.slots_needed
