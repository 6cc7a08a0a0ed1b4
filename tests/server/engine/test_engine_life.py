"""Streaming, time limits, failures and cancellation of requests."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.engine_bench import SLOTS, EngineBench
from tests.support.examples import examples
from tests.support.generation_params import (
    GREEDY,
    PROMPT,
    generations,
    greedy,
    greedy_tokens,
    prompts,
)

from gpt2flow.server.bundle.model_runner import ModelRunner
from gpt2flow.server.engine.results import GenerationResult
from gpt2flow.server.engine.sequence import FinishReason
from gpt2flow.server.errors import EngineError, TimeLimitError
from gpt2flow.server.params import (
    BeamSearchParams,
    ConstraintKind,
    ConstraintParams,
    GenerationParams,
    OutputParams,
    SamplingParams,
    StoppingParams,
)


@settings(max_examples=examples(60))
@given(prompt=prompts, params=generations, echo=st.booleans())
def test_deltas_add_up_to_the_result(
    make_bench: Callable[[], EngineBench],
    prompt: list[int],
    params: GenerationParams,
    echo: bool,  # noqa: FBT001 - drawn by Hypothesis
) -> None:
    output = OutputParams(logprobs=True, token_ids=True, echo=echo)
    bench = make_bench()
    task = bench.add(bench.task(prompt, replace(params, output=output), stream=True))
    bench.finish()
    bench.assert_deltas_match_result(task)


def test_text_is_streamed_as_it_is_decoded(bench: EngineBench) -> None:
    task = bench.add(bench.task(PROMPT, greedy(10, ignore_eos=True), stream=True))
    bench.finish()
    assert len(bench.events[task.request.id]) > 5


def test_without_streaming_there_is_one_event(bench: EngineBench) -> None:
    task = bench.add(bench.task(PROMPT, greedy(10)))
    bench.finish()
    assert len(bench.events[task.request.id]) == 1


# --- Time, failure, cancellation ------------------------------------------------------


def test_a_deadline_ends_a_running_request(bench: EngineBench) -> None:
    task = bench.add(bench.task(PROMPT, greedy(50, ignore_eos=True), deadline=5.0))
    other = bench.add(bench.task(PROMPT, greedy(12)))
    bench.step()
    bench.now = 5.0
    bench.step()
    assert isinstance(bench.outcome(task), TimeLimitError)
    bench.finish()
    assert list(bench.result(other).candidates[0].token_ids) == greedy_tokens(bench)


def test_a_deadline_ends_a_waiting_request(bench: EngineBench) -> None:
    for _ in range(SLOTS):
        bench.add(bench.task(PROMPT, greedy(20, ignore_eos=True)))
    waiting = bench.add(bench.task(PROMPT, greedy(5), deadline=1.0))
    bench.step()
    bench.now = 1.0
    bench.step()
    assert isinstance(bench.outcome(waiting), TimeLimitError)


@pytest.mark.parametrize(
    "decoding", [GREEDY, SamplingParams(n=2, seed=1), BeamSearchParams(num_beams=2)]
)
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_a_time_limit_returns_the_partial_result(
    bench: EngineBench, decoding: SamplingParams | BeamSearchParams, steps: int
) -> None:
    stopping = StoppingParams(
        max_new_tokens=50,
        ignore_eos=True,
        time_limit_seconds=2.0,
        return_partial_on_time_limit=True,
    )
    task = bench.add(bench.task(PROMPT, GenerationParams(decoding=decoding, stopping=stopping)))
    for _ in range(steps):
        bench.step()
    bench.now = 2.0
    bench.step()
    result = bench.result(task)
    assert result.timing.total == 2.0
    for candidate in result.candidates:
        assert candidate.finish_reason is FinishReason.TIME_LIMIT
        assert len(candidate.token_ids) == steps
        assert candidate.text == bench.tokenizer.decode(candidate.token_ids)
    expected = decoding.n if isinstance(decoding, SamplingParams) else 1
    assert len(result.candidates) == expected


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_time_limit_during_prefill_returns_all_candidates(bench: EngineBench, steps: int) -> None:
    params = GenerationParams(
        decoding=SamplingParams(n=3, seed=1),
        stopping=StoppingParams(time_limit_seconds=2.0, return_partial_on_time_limit=True),
        output=OutputParams(echo=True),
    )
    task = bench.add(bench.task("Where is my order? " * 2, params, stream=True))
    for _ in range(steps):
        bench.step()
    assert task.request.first_token is None
    bench.now = 2.0
    bench.step()
    candidates = bench.result(task).candidates
    assert [each.finish_reason for each in candidates] == [FinishReason.TIME_LIMIT] * 3
    assert [each.text for each in candidates] == ["Where is my order? " * 2] * 3
    bench.assert_deltas_match_result(task)


def test_an_interrupted_run_of_forced_tokens_stays_consistent(bench: EngineBench) -> None:
    params = GenerationParams(
        decoding=GREEDY,
        stopping=StoppingParams(
            max_new_tokens=50, time_limit_seconds=2.0, return_partial_on_time_limit=True
        ),
        constraint=ConstraintParams(ConstraintKind.CHOICES, ("please send it to my new address",)),
        output=OutputParams(logprobs=True, token_ids=True),
    )
    task = bench.add(bench.task(PROMPT, params, stream=True))
    bench.step()
    bench.now = 2.0
    bench.step()
    [candidate] = bench.result(task).candidates
    assert [each.chosen.token_id for each in candidate.logprobs] == list(candidate.token_ids)


def test_timing_is_split_into_queue_prefill_and_decode(bench: EngineBench) -> None:
    task = bench.task([*PROMPT, *PROMPT], greedy(3, ignore_eos=True))
    bench.now = 1.0
    bench.add(task)
    while bench.engine.busy:
        bench.step()
        bench.now += 1.0
    timing = bench.result(task).timing
    # Two chunks of the prompt, the second with the first token; then two decode steps.
    assert (timing.queue, timing.prefill, timing.decode, timing.total) == (1, 1, 2, 4)


def test_an_aborted_request_frees_its_slots_without_an_event(bench: EngineBench) -> None:
    params = GenerationParams(decoding=SamplingParams(n=3, seed=1))
    task = bench.add(bench.task(PROMPT, params))
    bench.step()
    bench.step()
    assert bench.cache.free_slots < SLOTS
    bench.engine.abort(task.request.id)
    bench.engine.abort(task.request.id)
    assert not bench.engine.busy
    assert bench.events[task.request.id] == []
    bench.assert_all_free()


def test_a_failing_run_ends_only_the_requests_in_it(
    bench: EngineBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = bench.add(bench.task(PROMPT, greedy(12)))
    waiting = bench.add(bench.task(PROMPT, GenerationParams(decoding=SamplingParams(n=6))))
    bench.step()

    def broken(*_args: Any) -> None:
        raise RuntimeError("injected failure")

    with monkeypatch.context() as patch:
        patch.setattr(ModelRunner, "run", broken)
        bench.step()
    outcome = bench.outcome(task)
    assert isinstance(outcome, EngineError)
    assert isinstance(outcome.__cause__, RuntimeError)
    bench.finish()
    assert isinstance(bench.outcome(waiting), GenerationResult)
