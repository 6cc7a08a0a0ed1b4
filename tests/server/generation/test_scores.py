"""Scores of continuations, compared with transformers."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.engine_bench import EngineBench
from tests.support.examples import examples
from tests.support.generation_params import (
    PROMPT,
    greedy,
    greedy_tokens,
    prompts,
    reference_logprobs,
)
from transformers import GPT2LMHeadModel

from gpt2flow.server.generation.factory import Arrival
from gpt2flow.server.generation.prompts import Prompt


@settings(max_examples=examples(40))
@given(
    prompt=prompts,
    continuations=st.lists(
        st.lists(st.integers(1, 300), min_size=1, max_size=20), min_size=1, max_size=4
    ),
)
def test_scores_equal_the_log_likelihoods_of_transformers(
    make_bench: Callable[[], EngineBench],
    reference: GPT2LMHeadModel,
    prompt: list[int],
    continuations: list[list[int]],
) -> None:
    bench = make_bench()
    task = bench.factory.score(
        Prompt("prompt", tuple(prompt)),
        [Prompt("continuations", tuple(each)) for each in continuations],
        Arrival(0.0),
    )
    bench.add(task)
    other = bench.add(bench.task(PROMPT, greedy(12)))
    bench.finish()
    outcome: Any = bench.outcome(task)
    for score, continuation in zip(outcome.scores, continuations, strict=True):
        logprobs = reference_logprobs(reference, prompt + continuation)
        expected = [
            float(logprobs[len(prompt) + at - 1, token]) for at, token in enumerate(continuation)
        ]
        assert [each.token_id for each in score.tokens] == continuation
        assert [each.logprob for each in score.tokens] == pytest.approx(expected, abs=1e-3)
    assert list(bench.result(other).candidates[0].token_ids) == greedy_tokens(make_bench())
    bench.assert_all_free()
