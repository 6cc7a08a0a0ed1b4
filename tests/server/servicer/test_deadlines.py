"""Deadlines of waiting requests, and the forecast that refuses late ones."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from tests.support.engine_bench import EngineBench
from tests.support.generation_params import PROMPT, greedy

from gpt2flow.server.engine.forecast import CHECK_SECONDS, OPTIMISM, Forecast
from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.results import GenerationResult
from gpt2flow.server.engine.sequence import FinishReason, Request
from gpt2flow.server.engine.task import Task
from gpt2flow.server.errors import TimeLimitError

MakeBench = Callable[..., EngineBench]


def record_measurements(bench: EngineBench, *, hold: float = 0.0, token: float = 0.0) -> Forecast:
    """Record seconds per slot and per prompt token; return the forecast."""
    forecast = bench.engine._forecast
    forecast.record_hold(hold, 1)
    forecast.record_prompt(token * 1000, 1000)
    return forecast


def add_request(
    bench: EngineBench, deadline: float | None = None, *, partial: bool = False
) -> Task:
    params = greedy(20, ignore_eos=True, return_partial_on_time_limit=partial)
    return bench.add(bench.task(PROMPT, params, deadline=deadline))


def test_a_request_past_its_deadline_is_refused_immediately(bench: EngineBench) -> None:
    bench.now = 3.0
    late = add_request(bench, 2.5)
    bench.step()
    outcome = bench.outcome(late)
    assert isinstance(outcome, TimeLimitError)
    assert late.request.started is None


def test_a_request_that_cannot_start_in_time_is_refused_immediately(make_bench: MakeBench) -> None:
    bench = make_bench(1)
    record_measurements(bench, hold=10.0)
    add_request(bench)
    add_request(bench)
    bench.step()
    # Two slots must be released first: one at no cost, one after 10 s, times OPTIMISM.
    late, in_time = add_request(bench, 4.9), add_request(bench, 10.1)
    bench.step()
    outcome = bench.outcome(late)
    assert isinstance(outcome, TimeLimitError)
    assert "would wait 20.000 s for its first token, its time is up in 4.900 s" in str(outcome)
    assert not bench.events[in_time.request.id]
    bench.finish()
    assert isinstance(bench.outcome(in_time), GenerationResult)


def test_a_waiting_request_is_refused_as_soon_as_it_is_late(make_bench: MakeBench) -> None:
    bench = make_bench(1)
    record_measurements(bench, hold=10.0)
    add_request(bench)
    add_request(bench)
    waiting = add_request(bench, 6.0)
    bench.step()
    assert not bench.events[waiting.request.id]
    bench.now = 0.9
    bench.step()
    assert not bench.events[waiting.request.id]
    bench.now = 1.0 + 2 * CHECK_SECONDS
    bench.step()
    assert isinstance(bench.outcome(waiting), TimeLimitError)
    bench.finish()


def test_only_uncached_prompt_tokens_delay_the_first_token(make_bench: MakeBench) -> None:
    bench = make_bench(2)
    bench.run(PROMPT, greedy(1))
    record_measurements(bench, token=100.0)
    add_request(bench)
    add_request(bench)
    cached = add_request(bench, 80.0)
    uncached = bench.add(bench.task(PROMPT[::-1], greedy(1), deadline=80.0))
    bench.step()
    assert isinstance(bench.outcome(uncached), TimeLimitError)
    assert not bench.events[cached.request.id]
    bench.finish()


def test_short_chunks_do_not_change_the_time_per_token(make_bench: MakeBench) -> None:
    bench = make_bench(slots=1)
    add_request(bench)
    bench.step()
    forecast = record_measurements(bench, token=0.001)
    for _ in range(100):
        forecast.record_prompt(0.1, 1)
    waiting = add_request(bench, bench.now + 0.001 * len(PROMPT))
    bench.step()
    assert waiting.request.id in bench.engine._tasks


def test_no_request_with_slots_is_refused(make_bench: MakeBench) -> None:
    bench = make_bench(2)
    record_measurements(bench, hold=1000.0, token=1000.0)
    both = [add_request(bench, 1.0), add_request(bench, 1.0)]
    bench.finish()
    assert all(isinstance(bench.outcome(task), GenerationResult) for task in both)


def test_no_request_is_refused_before_the_first_measurement(make_bench: MakeBench) -> None:
    bench = make_bench(1)
    tasks = [add_request(bench, 0.001) for _ in range(5)]
    bench.finish()
    assert all(isinstance(bench.outcome(task), GenerationResult) for task in tasks)


def test_a_request_that_allows_partial_results_is_never_refused(make_bench: MakeBench) -> None:
    bench = make_bench(1)
    record_measurements(bench, hold=100.0)
    add_request(bench)
    add_request(bench)
    patient = add_request(bench, 1.0, partial=True)
    bench.step()
    assert not bench.events[patient.request.id]
    bench.now = 1.0
    bench.step()
    [candidate] = bench.result(patient).candidates
    assert candidate.finish_reason is FinishReason.TIME_LIMIT
    assert candidate.token_ids == ()
    bench.finish()


def test_the_forecast_measures_how_long_slots_are_held(make_bench: MakeBench) -> None:
    bench = make_bench(2)
    tasks = [add_request(bench), add_request(bench)]
    while bench.engine.busy:
        bench.now += 0.5
        bench.step()
    held = [task.result(bench.now).timing.total for task in tasks]
    assert bench.engine.release_interval > 0
    assert bench.engine.release_interval <= max(held) / 2


@given(
    st.lists(st.tuples(st.integers(1, 3), st.none() | st.floats(0.1, 50)), max_size=12),
    st.integers(0, 3),
    st.floats(0.1, 10),
)
def test_refused_requests_do_not_delay_those_behind_them(
    waiting: list[tuple[int, float | None]], taken: int, hold: float
) -> None:
    """Only requests that are not late delay those behind them."""
    cache = SlotCache(3, 100)
    if taken:
        cache.allocate(taken)
    forecast = Forecast(cache)
    forecast.record_hold(hold, 1)
    queue = [
        Request(i, [1], slots_needed, arrival=0.0, deadline=deadline)
        for i, (slots_needed, deadline) in enumerate(waiting)
    ]
    late = dict(forecast.late(queue, 0.0))
    lacking = -cache.free_slots
    for request in queue:
        lacking += request.slots_needed
        allowed = request.deadline is None or lacking <= 0
        if not allowed:
            allowed = OPTIMISM * ((lacking - 1) * forecast.release_interval) <= (
                request.deadline or 0
            )
        assert allowed == (request not in late)
        if request in late:
            assert late[request] >= (request.deadline or 0)
            lacking -= request.slots_needed
