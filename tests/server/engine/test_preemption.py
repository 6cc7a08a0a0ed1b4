"""Preempted requests resume and give the same result as without preemption."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from tests.support.engine_bench import EngineBench
from tests.support.generation_params import GREEDY, PROMPT, SCHEMA, greedy

from gpt2flow.server.engine.results import GenerationResult, PositionLogprobs, ScoreResult
from gpt2flow.server.engine.sequence import FinishReason
from gpt2flow.server.engine.task import Task
from gpt2flow.server.errors import InvalidRequestError, TimeLimitError
from gpt2flow.server.generation.factory import Arrival
from gpt2flow.server.generation.prompts import Prompt
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
SEVERAL = 3

SAMPLING = SamplingParams(seed=3, n=SEVERAL, repetition_penalty=1.2)
BEAMS = BeamSearchParams(num_beams=SEVERAL, num_return_sequences=SEVERAL)
JSON = ConstraintParams(ConstraintKind.JSON_SCHEMA, (SCHEMA,))
CHOICES = ConstraintParams(ConstraintKind.CHOICES, ("my new address!", "my new order, please"))
FORCED = ConstraintParams(ConstraintKind.CHOICES, ("please send it to my new address",))
ALL_OUTPUT = OutputParams(logprobs=True, top_logprobs=2, token_ids=True, echo=True)

KINDS: dict[
    str, tuple[SamplingParams | BeamSearchParams, ConstraintParams | None, OutputParams]
] = {
    "greedy": (GREEDY, None, ALL_OUTPUT),
    "sampled": (SAMPLING, None, ALL_OUTPUT),
    "constrained": (SAMPLING, JSON, ALL_OUTPUT),
    "forked after forced tokens": (SAMPLING, CHOICES, ALL_OUTPUT),
    "all forced": (SAMPLING, FORCED, ALL_OUTPUT),
    "prompt logprobs": (GREEDY, None, replace(ALL_OUTPUT, prompt_logprobs=True)),
    "beams": (BEAMS, None, ALL_OUTPUT),
    "constrained beams": (BEAMS, CHOICES, ALL_OUTPUT),
}


def task_of(bench: EngineBench, kind: str) -> Task:
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


def add_urgent(bench: EngineBench, slots: int, prompt: Sequence[int] = (9, 8, 7)) -> Task:
    decoding = GREEDY if slots == 1 else SamplingParams(seed=1, n=slots)
    stopping = StoppingParams(max_new_tokens=3, ignore_eos=True)
    params = GenerationParams(decoding=decoding, stopping=stopping, priority=1)
    return bench.add(bench.task(prompt, params))


def assert_close(some: Sequence[PositionLogprobs], others: Sequence[PositionLogprobs]) -> None:
    assert [each.chosen.token_id for each in some] == [each.chosen.token_id for each in others]
    logprobs = [each.chosen.logprob for each in some if each.chosen.logprob is not None]
    expected = [each.chosen.logprob for each in others if each.chosen.logprob is not None]
    assert logprobs == pytest.approx(expected, abs=1e-3)


def assert_same(outcome: object, expected: object) -> None:
    if isinstance(expected, ScoreResult):
        assert isinstance(outcome, ScoreResult)
        assert outcome.usage == expected.usage
        for score, expected_score in zip(outcome.scores, expected.scores, strict=True):
            assert len(score.tokens) == len(expected_score.tokens)
            assert score.total == pytest.approx(expected_score.total, abs=1e-3)
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


@pytest.mark.parametrize("urgent", [1, SEVERAL], ids=["partly cached", "not cached"])
@pytest.mark.parametrize("kind", [*KINDS, "score"])
def test_preemption_at_any_step_keeps_the_result(
    make_bench: Callable[..., EngineBench], kind: str, urgent: int
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
        add_urgent(bench, min(urgent, slots))
        bench.step()
        assert task.request.preemptions == (free < min(urgent, slots))
        if urgent == SEVERAL:
            bench.cache.evict_all()
        while bench.engine.busy and not task.request.slots:
            bench.step()
        add_urgent(bench, slots)  # In some steps while it recomputes evicted positions.
        bench.finish()
        assert_same(bench.outcome(task), alone.outcome(expected))
        if kind in KINDS and not isinstance(KINDS[kind][0], BeamSearchParams):
            bench.assert_deltas_match_result(task)
        bench.assert_all_free()


def test_positions_that_are_still_cached_are_not_recomputed(
    make_bench: Callable[..., EngineBench],
) -> None:
    bench = make_bench(slots=3)
    task = bench.add(task_of(bench, "beams"))
    for _ in range(6):
        bench.step()
    held = [each.tokens[:-1] for each in task.request.sequences]
    add_urgent(bench, 1, prompt=TEXT)
    bench.step()
    assert task.request.slots == []
    while not task.request.slots:
        bench.step()
    lengths = bench.cache.lengths
    found = [lengths[each.slot] for each in task.request.sequences]
    # The urgent request took one slot, in which only the common prefix remains.
    assert sorted(found)[1:] == [len(tokens) for tokens in held][1:]
    assert min(found) >= len(TEXT)
    bench.finish()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("partial", [False, True])
def test_a_time_limit_ends_a_preempted_request(
    make_bench: Callable[..., EngineBench], kind: str, *, partial: bool
) -> None:
    bench = make_bench(slots=SEVERAL)
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
    add_urgent(bench, SEVERAL)
    bench.step()
    assert task.request.slots == []
    bench.now = 2.0
    bench.step()
    outcome = bench.outcome(task)
    if partial:
        for candidate in bench.result(task).candidates:
            # A constraint may have ended the candidate before.
            assert candidate.finish_reason in {FinishReason.TIME_LIMIT, FinishReason.CONSTRAINT}
            assert len(candidate.logprobs) == len(candidate.token_ids) > 0
    else:
        assert isinstance(outcome, TimeLimitError)
    bench.finish()
    bench.assert_all_free()


def test_a_preempted_request_can_be_cancelled(make_bench: Callable[..., EngineBench]) -> None:
    bench = make_bench(slots=SEVERAL)
    task = bench.add(task_of(bench, "sampled"))
    for _ in range(5):
        bench.step()
    other = add_urgent(bench, SEVERAL)
    bench.step()
    bench.engine.abort(task.request.id)
    bench.finish()
    assert isinstance(bench.outcome(other), GenerationResult)
    bench.assert_all_free()


def test_queue_time_ends_at_the_first_start(
    make_bench: Callable[..., EngineBench],
) -> None:
    bench = make_bench(slots=1)
    task = bench.task(PROMPT, greedy(4, ignore_eos=True))
    bench.now = 1.0
    bench.add(task)
    bench.step()
    add_urgent(bench, 1)
    while bench.engine.busy:
        bench.now += 1.0
        bench.step()
    timing = bench.result(task).timing
    assert (timing.queue, timing.prefill) == (1.0, 0.0)
    assert timing.decode == timing.total - 1.0 == 6.0
    assert task.request.preemptions == 1


def test_a_cache_of_one_slot_serves_all_requests(make_bench: Callable[..., EngineBench]) -> None:
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
    "decoding, field, reason",
    [
        (SAMPLING, "options.sampling.n", ""),
        (
            BEAMS,
            "options.beam_search.num_beams",
            ": each beam takes a slot of the KV cache (--max-sequences)",
        ),
    ],
)
def test_a_request_for_too_many_slots_is_refused_with_the_limit(
    make_bench: Callable[..., EngineBench],
    decoding: SamplingParams | BeamSearchParams,
    field: str,
    reason: str,
) -> None:
    bench = make_bench(slots=1)
    with pytest.raises(InvalidRequestError) as caught:
        bench.task(PROMPT, GenerationParams(decoding=decoding))
    assert [(each.field, each.description) for each in caught.value.violations] == [
        (field, f"must be in [1, 1]{reason}")
    ]
