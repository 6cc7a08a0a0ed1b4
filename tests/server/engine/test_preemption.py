"""A request that loses its slots goes on where it was, as if nothing had been."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from tests.server.conftest import Bench
from tests.support.generation_params import GREEDY, PROMPT, SCHEMA, greedy

from gpt2flow.server.engine.results import Delta, GenerationResult, PositionLogprobs, ScoreResult
from gpt2flow.server.engine.sequence import FinishReason
from gpt2flow.server.engine.task import Task
from gpt2flow.server.errors import InvalidRequestError, TimeLimitError
from gpt2flow.server.generation.factory import Arrival, Prompt
from gpt2flow.server.params import (
    BeamSearchParams,
    ConstraintKind,
    ConstraintParams,
    GenerationParams,
    OutputParams,
    SamplingParams,
    StoppingParams,
)

TEXT = [(7 * at) % 290 + 5 for at in range(20)]
WIDTH = 3

SAMPLING = SamplingParams(seed=3, n=WIDTH, repetition_penalty=1.2)
BEAMS = BeamSearchParams(num_beams=WIDTH, num_return_sequences=WIDTH)
JSON = ConstraintParams(ConstraintKind.JSON_SCHEMA, (SCHEMA,))
CHOICES = ConstraintParams(ConstraintKind.CHOICES, ("my new address!", "my new order, please"))
FORCED = ConstraintParams(ConstraintKind.CHOICES, ("please send it to my new address",))
EVERYTHING = OutputParams(logprobs=True, top_logprobs=2, token_ids=True, echo=True)

KINDS: dict[
    str, tuple[SamplingParams | BeamSearchParams, ConstraintParams | None, OutputParams]
] = {
    "greedy": (GREEDY, None, EVERYTHING),
    "sampled": (SAMPLING, None, EVERYTHING),
    "constrained": (SAMPLING, JSON, EVERYTHING),
    "forked after forced tokens": (SAMPLING, CHOICES, EVERYTHING),
    "all forced": (SAMPLING, FORCED, EVERYTHING),
    "prompt logprobs": (GREEDY, None, replace(EVERYTHING, prompt_logprobs=True)),
    "beams": (BEAMS, None, EVERYTHING),
    "constrained beams": (BEAMS, CHOICES, EVERYTHING),
}


def task_of(bench: Bench, kind: str) -> Task:
    if kind == "score":
        continuations = [Prompt("c", tuple(TEXT[:9])), Prompt("c", (6,)), Prompt("c", (5, 5))]
        return bench.factory.score(Prompt("p", tuple(TEXT)), continuations, Arrival(0.0))
    decoding, constraint, output = KINDS[kind]
    stopping = (
        StoppingParams(max_new_tokens=30)
        if constraint
        else StoppingParams(max_new_tokens=8, stop_strings=("e",))
    )
    params = GenerationParams(
        decoding=decoding, stopping=stopping, constraint=constraint, output=output
    )
    return bench.task(TEXT, params, stream=True)


def urgent(bench: Bench, width: int, prompt: Sequence[int] = (9, 8, 7)) -> Task:
    decoding = GREEDY if width == 1 else SamplingParams(seed=1, n=width)
    stopping = StoppingParams(max_new_tokens=3, ignore_eos=True)
    params = GenerationParams(decoding=decoding, stopping=stopping, priority=1)
    return bench.add(bench.task(prompt, params))


def assert_close(some: Sequence[PositionLogprobs], others: Sequence[PositionLogprobs]) -> None:
    assert [each.chosen.token_id for each in some] == [each.chosen.token_id for each in others]
    known = [each.chosen.logprob for each in some if each.chosen.logprob is not None]
    expected = [each.chosen.logprob for each in others if each.chosen.logprob is not None]
    assert known == pytest.approx(expected, abs=1e-3)


def assert_same(outcome: object, expected: object) -> None:
    if isinstance(expected, ScoreResult):
        assert isinstance(outcome, ScoreResult)
        assert outcome.usage == expected.usage
        for score, wanted in zip(outcome.scores, expected.scores, strict=True):
            assert len(score.tokens) == len(wanted.tokens)
            assert score.total == pytest.approx(wanted.total, abs=1e-3)
        return
    assert isinstance(outcome, GenerationResult)
    assert isinstance(expected, GenerationResult)
    assert outcome.usage == expected.usage
    assert_close(outcome.prompt_logprobs, expected.prompt_logprobs)
    for one, other in zip(outcome.candidates, expected.candidates, strict=True):
        assert (one.token_ids, one.text) == (other.token_ids, other.text)
        assert (one.finish_reason, one.stop_string) == (other.finish_reason, other.stop_string)
        assert one.cumulative_logprob == pytest.approx(other.cumulative_logprob, abs=1e-3)
        assert_close(one.logprobs, other.logprobs)


def assert_sent_once(bench: Bench, task: Task) -> None:
    """The pieces of the stream add up to the result."""
    deltas = [each.content for each in bench.events[task.request.id][:-1]]
    for index, candidate in enumerate(bench.result(task).candidates):
        own = [each for each in deltas if isinstance(each, Delta) and each.index == index]
        assert "".join(each.text for each in own) == candidate.text
        assert tuple(token for each in own for token in each.token_ids) == candidate.token_ids


@pytest.mark.parametrize("width", [1, WIDTH], ids=["some is remembered", "nothing is"])
@pytest.mark.parametrize("kind", [*KINDS, "score"])
def test_whenever_it_is_preempted_it_gives_what_it_gives_alone(
    make_bench: Callable[..., Bench], kind: str, width: int
) -> None:
    alone, steps = make_bench(), 0
    expected = alone.add(task_of(alone, kind))
    slots = expected.request.slots_needed
    while alone.engine.busy:
        alone.step()
        steps += 1
    assert steps > 3
    for step in range(1, steps):
        bench = make_bench(slots=slots)
        task = bench.add(task_of(bench, kind))
        for _ in range(step):
            bench.step()
        free = bench.cache.free_slots
        urgent(bench, min(width, slots))
        bench.step()
        assert task.request.preemptions == (free < min(width, slots))
        if width == WIDTH:
            bench.cache.forget()
        while bench.engine.busy and not task.request.slots:
            bench.step()
        urgent(bench, slots)  # Perhaps while it runs again what it had lost.
        bench.finish()
        assert_same(bench.outcome(task), alone.outcome(expected))
        if kind in KINDS and not isinstance(KINDS[kind][0], BeamSearchParams):
            assert_sent_once(bench, task)
        bench.assert_all_free()


def test_what_the_cache_still_holds_is_not_run_again(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(slots=3)
    task = bench.add(task_of(bench, "beams"))
    for _ in range(6):
        bench.step()
    held = [each.tokens[:-1] for each in task.request.sequences]
    urgent(bench, 1, prompt=TEXT)
    bench.step()
    assert task.request.slots == []
    while not task.request.slots:
        bench.step()
    lengths = bench.cache.lengths
    found = [lengths[each.slot] for each in task.request.sequences]
    # The other took over one slot, and starts as they all do.
    assert sorted(found)[1:] == [len(tokens) for tokens in held][1:]
    assert min(found) >= len(TEXT)
    bench.finish()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("partial", [False, True])
def test_a_time_limit_ends_a_preempted_request(
    make_bench: Callable[..., Bench], kind: str, *, partial: bool
) -> None:
    bench = make_bench(slots=WIDTH)
    decoding, constraint, output = KINDS[kind]
    stopping = StoppingParams(
        max_new_tokens=50, time_limit_seconds=2.0, return_partial_on_time_limit=partial
    )
    params = GenerationParams(
        decoding=decoding, stopping=stopping, constraint=constraint, output=output
    )
    task = bench.add(bench.task(TEXT, params))
    for _ in range(4):
        bench.step()
    urgent(bench, WIDTH)
    bench.step()
    assert task.request.slots == []
    bench.now = 2.0
    bench.step()
    outcome = bench.outcome(task)
    if partial:
        for candidate in bench.result(task).candidates:
            # A constraint may have forced its end already.
            assert candidate.finish_reason in {FinishReason.TIME_LIMIT, FinishReason.CONSTRAINT}
            assert len(candidate.logprobs) == len(candidate.token_ids) > 0
    else:
        assert isinstance(outcome, TimeLimitError)
    bench.finish()
    bench.assert_all_free()


def test_a_preempted_request_can_be_cancelled(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(slots=WIDTH)
    task = bench.add(task_of(bench, "sampled"))
    for _ in range(5):
        bench.step()
    other = urgent(bench, WIDTH)
    bench.step()
    bench.engine.abort(task.request.id)
    bench.finish()
    assert isinstance(bench.outcome(other), GenerationResult)
    bench.assert_all_free()


def test_the_queue_is_what_came_before_the_first_start(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(slots=1)
    task = bench.task(PROMPT, greedy(4, ignore_eos=True))
    bench.now = 1.0
    bench.add(task)
    bench.step()
    urgent(bench, 1)
    while bench.engine.busy:
        bench.now += 1.0
        bench.step()
    timing = bench.result(task).timing
    assert (timing.queue, timing.prefill) == (1.0, 0.0)
    assert timing.decode == timing.total - 1.0 == 6.0
    assert task.request.preemptions == 1


def test_a_cache_of_one_slot_serves_all_in_turn(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(slots=1)
    tasks = []
    for number in range(6):
        params = replace(greedy(3, ignore_eos=True), priority=number % 3)
        tasks.append(bench.add(bench.task([number + 1, *TEXT], params)))
        bench.step()
    bench.finish()
    assert [len(bench.result(task).candidates[0].token_ids) for task in tasks] == [3] * 6
    bench.assert_all_free()


@pytest.mark.parametrize(
    "decoding,field",
    [(SAMPLING, "options.sampling.n"), (BEAMS, "options.beam_search.num_beams")],
)
def test_what_never_fits_is_refused_with_the_numbers(
    make_bench: Callable[..., Bench], decoding: SamplingParams | BeamSearchParams, field: str
) -> None:
    bench = make_bench(slots=1)
    with pytest.raises(InvalidRequestError) as caught:
        bench.task(PROMPT, GenerationParams(decoding=decoding))
    assert [(each.field, each.description) for each in caught.value.violations] == [
        (field, "must be in [1, 1]")
    ]
