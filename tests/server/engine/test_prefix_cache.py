"""Prefix reuse saves runs of the model and changes no result."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.engine_bench import CONTEXT, SLOTS, EngineBench
from tests.support.examples import examples
from tests.support.generation_params import beams, generations, greedy
from tests.support.model_runs import record_runs
from tests.support.naive_decode import assert_cache_matches_model

from gpt2flow.server.bundle.model_runner import ModelRunner
from gpt2flow.server.engine.results import ScoreResult
from gpt2flow.server.engine.task import Task
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

PREFIX = [(7 * at) % 290 + 5 for at in range(60)]


@dataclass(frozen=True)
class Client:
    """Request with its time of arrival and of cancellation.

    Attributes:
        prompt: Token ids.
        params: Parameters of the generation.
        delay: Steps between the previous arrival and this one.
        cancelled: Steps between arrival and cancellation, or None.
    """

    prompt: list[int]
    params: GenerationParams
    delay: int
    cancelled: int | None


@st.composite
def prompts(draw: st.DrawFn) -> list[int]:
    """Draw part of one of two texts with an end."""
    text = PREFIX if draw(st.booleans()) else PREFIX[:9] + PREFIX[::-1]
    end = draw(st.lists(st.integers(1, 3), max_size=4))
    return text[: draw(st.sampled_from([0, 1, 8, 9, 10, 33, 60]))] + end or [1]


clients = st.builds(
    Client,
    prompt=prompts(),
    params=st.one_of(generations, generations, beams),
    delay=st.sampled_from([0, 0, 1, 5, 100]),
    cancelled=st.sampled_from([None, None, None, 1, 3, 9]),
)


def run_mix(bench: EngineBench, mix: list[Client]) -> list[Task]:
    """Run all clients to their end and return their tasks."""
    tasks: list[Task] = []
    drops: list[tuple[int, int]] = []
    step = arrival = 0
    while len(tasks) < len(mix) or bench.engine.busy:
        idle = not bench.engine.busy
        while len(tasks) < len(mix) and (idle or step >= arrival + mix[len(tasks)].delay):
            client, arrival, idle = mix[len(tasks)], step, False
            tasks.append(bench.add(bench.task(client.prompt, client.params)))
            if client.cancelled is not None:
                drops.append((step + client.cancelled, tasks[-1].request.id))
        for at, request_id in drops:
            if at == step:
                bench.engine.abort(request_id)
        bench.step()
        step += 1
    return tasks


@settings(max_examples=examples(60))
@given(mix=st.lists(clients, min_size=2, max_size=10))
def test_shared_prefixes_change_no_result(
    make_bench: Callable[[], EngineBench], fresh_runner: ModelRunner, mix: list[Client]
) -> None:
    expected = [make_bench().tokens(client.prompt, client.params) for client in mix]
    bench = make_bench()
    for client, task, tokens in zip(mix, run_mix(bench, mix), expected, strict=True):
        if bench.events[task.request.id]:
            result = bench.result(task)
            assert [list(each.token_ids) for each in result.candidates] == tokens
            assert 0 <= result.usage.cached_tokens <= result.usage.prompt_tokens
        else:
            assert client.cancelled is not None
    assert_cache_matches_model(bench, fresh_runner)
    bench.assert_all_free()


@settings(max_examples=examples(20))
@given(ends=st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=9), min_size=2, max_size=9))
def test_a_shared_prefix_is_run_once(
    make_bench: Callable[[], EngineBench], ends: list[list[int]]
) -> None:
    bench = make_bench()
    tasks = [bench.add(bench.task(PREFIX + end, greedy(5))) for end in ends]
    bench.finish()
    cached = [bench.result(task).usage.cached_tokens for task in tasks]
    assert sum(cached) >= len(PREFIX) * (len(ends) - 1)


def cached(bench: EngineBench, prompt: list[int], params: GenerationParams) -> int:
    """Run a request and return its number of cached prompt tokens."""
    return bench.run(prompt, params).usage.cached_tokens


def test_a_repeated_prompt_runs_one_token(
    bench: EngineBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bench.run(PREFIX, greedy(1))
    runs = record_runs(monkeypatch)
    again = bench.run(PREFIX, greedy(1))
    assert [run.tokens for run in runs] == [1]
    assert again.usage.cached_tokens == len(PREFIX) - 1
    assert again.candidates[0].token_ids == first.candidates[0].token_ids


def test_generated_tokens_are_reused_as_a_prefix(bench: EngineBench) -> None:
    [produced] = bench.tokens(PREFIX, greedy(10, ignore_eos=True))
    # The last token was sampled, but never run.
    assert cached(bench, [*PREFIX, *produced, 5, 6], greedy(2)) == len(PREFIX) + 9


@pytest.mark.parametrize(
    "decoding", [SamplingParams(temperature=0), BeamSearchParams(num_beams=2)], ids=["one", "beams"]
)
def test_prompt_logprobs_run_the_whole_prompt(
    bench: EngineBench, decoding: SamplingParams | BeamSearchParams
) -> None:
    params = replace(greedy(3), decoding=decoding)
    with_logprobs = replace(params, output=OutputParams(prompt_logprobs=True))
    first = bench.run(PREFIX, with_logprobs)
    again = bench.run(PREFIX, with_logprobs)
    assert again.usage.cached_tokens == 0
    assert [each.chosen.logprob for each in again.prompt_logprobs][1:] == pytest.approx(
        [each.chosen.logprob for each in first.prompt_logprobs][1:], abs=1e-4
    )
    assert cached(bench, PREFIX, params) == len(PREFIX) - 1
    echo = replace(params, output=OutputParams(echo=True))
    assert cached(bench, PREFIX, echo) == len(PREFIX) - 1


def test_scores_reuse_the_prompt(bench: EngineBench) -> None:
    outcomes = []
    for _ in range(2):
        continuations = [Prompt("c", (9, 8, 7)), Prompt("c", (6,)), Prompt("c", (5, 5))]
        task = bench.factory.score(Prompt("p", tuple(PREFIX)), continuations, Arrival(0.0))
        bench.add(task)
        bench.finish()
        outcome = bench.outcome(task)
        assert isinstance(outcome, ScoreResult)
        outcomes.append(outcome)
    assert [each.usage.cached_tokens for each in outcomes] == [0, len(PREFIX) - 1]
    assert [each.total for each in outcomes[0].scores] == pytest.approx(
        [each.total for each in outcomes[1].scores], abs=1e-4
    )


def test_the_prefix_of_a_running_sequence_is_reused(bench: EngineBench) -> None:
    live = bench.add(bench.task([*PREFIX, 1], greedy(30, ignore_eos=True)))
    while not live.request.sequences or live.request.sequences[0].new_tokens < 3:
        bench.step()
    other = bench.add(bench.task([*PREFIX, 2], greedy(30, ignore_eos=True)))
    bench.finish()
    assert bench.result(other).usage.cached_tokens == len(PREFIX)


def test_decoding_leaves_a_free_slot_below_a_running_one_intact(
    make_bench: Callable[[], EngineBench], fresh_runner: ModelRunner
) -> None:
    bench = make_bench()
    short = bench.add(bench.task(PREFIX, greedy(2, ignore_eos=True)))
    long = bench.add(bench.task([9], greedy(30, ignore_eos=True)))
    bench.finish()
    assert bench.cache.lengths[:2] == [len(PREFIX) + 1, 30]
    assert_cache_matches_model(bench, fresh_runner)
    assert short.done
    assert long.done


def test_the_part_of_a_cancelled_prompt_that_was_run_is_reused(bench: EngineBench) -> None:
    task = bench.add(bench.task(PREFIX, greedy(30)))
    for _ in range(3):
        bench.step()
    bench.engine.abort(task.request.id)
    assert cached(bench, PREFIX, greedy(1)) == 24


def test_nothing_of_a_failed_run_is_reused(
    bench: EngineBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(PREFIX, greedy(1))

    def broken(*_args: Any) -> None:
        raise RuntimeError("injected failure")

    with monkeypatch.context() as patch:
        patch.setattr(ModelRunner, "run", broken)
        bench.add(bench.task([*PREFIX, 1, 2], greedy(1)))
        bench.finish()
    assert cached(bench, PREFIX, greedy(1)) == 0
    bench.engine.clear()
    assert cached(bench, PREFIX, greedy(1)) == 0


def test_fully_forced_candidates_leave_a_correct_cache(
    make_bench: Callable[[], EngineBench],
) -> None:
    params = GenerationParams(
        decoding=SamplingParams(n=3, seed=1),
        stopping=StoppingParams(max_new_tokens=40),
        constraint=ConstraintParams(ConstraintKind.CHOICES, ("please send it to my new address",)),
        output=OutputParams(logprobs=True),
    )
    bench = make_bench()
    [produced, *_] = bench.tokens(PREFIX[:20], params)
    prompts = [[*PREFIX[:20], *produced, last] for last in range(1, 4)]
    tasks = [bench.add(bench.task(prompt, greedy(12))) for prompt in prompts]
    bench.finish()
    for prompt, task in zip(prompts, tasks, strict=True):
        result = bench.result(task)
        assert result.usage.cached_tokens >= len(prompt) - 2
        assert [list(result.candidates[0].token_ids)] == make_bench().tokens(prompt, greedy(12))


def test_the_context_can_be_filled_twice(bench: EngineBench) -> None:
    params = greedy(CONTEXT - len(PREFIX), ignore_eos=True)
    first = bench.run(PREFIX, params)
    both = [bench.add(bench.task(PREFIX, params)) for _ in range(2)]
    bench.finish()
    for task in both:
        assert bench.result(task).candidates[0].token_ids == first.candidates[0].token_ids
        assert bench.result(task).usage.cached_tokens == len(PREFIX) - 1


def test_many_prefixes_stay_cached_together(bench: EngineBench) -> None:
    prompts = [[number, *PREFIX] for number in range(1, SLOTS)]
    for prompt in prompts:
        assert cached(bench, prompt, greedy(2)) == 0
    for _ in range(2):
        assert [cached(bench, prompt, greedy(2)) for prompt in prompts] == [60] * len(prompts)
