"""Log-probabilities of a prompt after which nothing is generated."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.engine_bench import CONTEXT, EngineBench
from tests.support.examples import examples
from tests.support.generation_params import PROMPT, greedy, greedy_tokens, reference_logprobs
from transformers import GPT2LMHeadModel

from gpt2flow.server.engine.results import GenerationResult
from gpt2flow.server.engine.sequence import FinishReason
from gpt2flow.server.errors import InvalidRequestError, TimeLimitError
from gpt2flow.server.params import (
    BeamSearchParams,
    ConstraintKind,
    ConstraintParams,
    GenerationParams,
    OutputParams,
    SamplingParams,
    StoppingParams,
)


def prompt_only(
    decoding: SamplingParams | BeamSearchParams | None = None,
    *,
    partial: bool = False,
    **output: Any,
) -> GenerationParams:
    """Return parameters that score the prompt and generate nothing."""
    return GenerationParams(
        decoding=decoding or SamplingParams(),
        stopping=StoppingParams(max_new_tokens=0, return_partial_on_time_limit=partial),
        output=OutputParams(prompt_logprobs=True, **output),
    )


def assert_scores(result: GenerationResult, prompt: list[int], model: GPT2LMHeadModel) -> None:
    """Check the log-probabilities of a prompt against transformers."""
    first, *others = result.prompt_logprobs
    expected = reference_logprobs(model, prompt)
    assert [each.chosen.token_id for each in result.prompt_logprobs] == prompt
    assert first.chosen.logprob is None
    assert [each.chosen.logprob for each in others] == pytest.approx(
        [float(expected[at, token]) for at, token in enumerate(prompt[1:])], abs=1e-3
    )


@settings(max_examples=examples(30))
@given(st.lists(st.integers(1, 300), min_size=1, max_size=CONTEXT))
def test_scores_equal_transformers_beside_other_requests(
    make_bench: Callable[[], EngineBench], reference: GPT2LMHeadModel, prompt: list[int]
) -> None:
    bench = make_bench()
    task = bench.add(bench.task(prompt, prompt_only()))
    other = bench.add(bench.task(PROMPT, greedy(12)))
    bench.finish()
    result = bench.result(task)
    assert_scores(result, prompt, reference)
    [candidate] = result.candidates
    assert (candidate.text, candidate.token_ids) == ("", ())
    assert candidate.finish_reason is FinishReason.LENGTH
    assert candidate.cumulative_logprob == 0
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (len(prompt), 0)
    assert list(bench.result(other).candidates[0].token_ids) == greedy_tokens(make_bench())
    bench.assert_all_free()


@pytest.mark.parametrize("length", [1, 2, CONTEXT - 1, CONTEXT])
def test_a_prompt_may_fill_the_context(
    bench: EngineBench, reference: GPT2LMHeadModel, length: int
) -> None:
    prompt = [1 + i * 31 % 300 for i in range(length)]
    assert_scores(bench.run(prompt, prompt_only()), prompt, reference)


def test_the_scores_are_those_beside_new_tokens(bench: EngineBench) -> None:
    params = prompt_only(top_logprobs=3)
    longer = replace(params, stopping=StoppingParams(max_new_tokens=4))
    alone = bench.run(PROMPT, params).prompt_logprobs
    assert alone == bench.run(PROMPT, longer).prompt_logprobs
    assert [len(each.top) for each in alone] == [0, *[3] * (len(PROMPT) - 1)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "decoding, count",
    [
        (SamplingParams(), 1),
        (SamplingParams(n=3), 3),
        (BeamSearchParams(num_beams=4, num_return_sequences=2), 1),
    ],
)
def test_the_text_is_the_echo_of_the_prompt(
    bench: EngineBench, decoding: SamplingParams | BeamSearchParams, count: int, *, stream: bool
) -> None:
    task = bench.add(bench.task("Where is", prompt_only(decoding, echo=True), stream=stream))
    bench.finish()
    assert [each.text for each in bench.result(task).candidates] == ["Where is"] * count
    if stream and isinstance(decoding, SamplingParams):
        bench.assert_deltas_match_result(task)
    assert task.request.slots_needed == 1


def test_a_constraint_changes_nothing(bench: EngineBench) -> None:
    constraint = ConstraintParams(ConstraintKind.CHOICES, ("yes", "no"))
    params = prompt_only()
    constrained = bench.run(PROMPT, replace(params, constraint=constraint))
    assert constrained.prompt_logprobs == bench.run(PROMPT, params).prompt_logprobs
    assert constrained.candidates[0].finish_reason is FinishReason.LENGTH


def test_no_new_tokens_need_log_probabilities_of_the_prompt(bench: EngineBench) -> None:
    params = replace(prompt_only(), output=OutputParams())
    with pytest.raises(InvalidRequestError) as caught:
        bench.task(PROMPT, params)
    [violation] = caught.value.violations
    assert violation.field == "options.stopping.max_new_tokens"
    assert "must be at least 1; 0 needs options.output.prompt_logprobs" in violation.description


@pytest.mark.parametrize("partial", [False, True])
def test_time_that_is_up_ends_it(bench: EngineBench, *, partial: bool) -> None:
    prompt = [1 + i * 31 % 300 for i in range(CONTEXT)]
    task = bench.add(bench.task(prompt, prompt_only(partial=partial), deadline=10.0))
    bench.step()
    bench.now = 11.0
    bench.finish()
    outcome = bench.outcome(task)
    if not partial:
        assert isinstance(outcome, TimeLimitError)
        return
    assert isinstance(outcome, GenerationResult)
    assert outcome.candidates[0].finish_reason is FinishReason.TIME_LIMIT
    assert 1 < len(outcome.prompt_logprobs) < CONTEXT


def test_it_goes_on_after_a_preemption(
    make_bench: Callable[..., EngineBench], reference: GPT2LMHeadModel
) -> None:
    bench = make_bench(1)
    prompt = [1 + i * 31 % 300 for i in range(CONTEXT)]
    task = bench.add(bench.task(prompt, replace(prompt_only(), priority=-50)))
    bench.step()
    bench.step()
    urgent = bench.add(bench.task(PROMPT, replace(greedy(4), priority=50)))
    bench.finish()
    assert task.request.preemptions == 1
    assert len(bench.result(urgent).candidates[0].token_ids) == 4
    assert_scores(bench.result(task), prompt, reference)
    bench.assert_all_free()
