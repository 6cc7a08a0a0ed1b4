"""Speculative decoding and restricted logits save work and change no token."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.engine_bench import EngineBench
from tests.support.generation_params import GREEDY, PROMPT, greedy
from tests.support.model_runs import ModelRun, record_runs
from tests.support.paying_drafts import PayingDrafts

from gpt2flow.server.engine.results import CandidateResult, Usage
from gpt2flow.server.generation import sampling_task
from gpt2flow.server.generation.prompt_lookup import PromptLookup
from gpt2flow.server.params import (
    BeamSearchParams,
    ConstraintKind,
    ConstraintParams,
    GenerationParams,
    OutputParams,
    SamplingParams,
    StoppingParams,
)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[ModelRun]:
    return record_runs(monkeypatch)


def test_a_draft_is_what_followed_the_last_match() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 5, 9, 2, 3, 7, 8, 2, 3], 3)
    assert lookup.propose(10) == [7, 8, 2]
    assert lookup.propose(1) == [7]
    assert lookup.propose(0) == []


def test_a_match_of_three_tokens_is_preferred_to_two() -> None:
    assert PromptLookup([1, 2, 3, 4, 5, 6, 2, 3, 7, 1, 2, 3], 2).propose(10) == [4, 5]


def test_a_repeating_pattern_is_drafted_beyond_its_end() -> None:
    assert PromptLookup([4, 5, 6, 4, 5, 6, 4, 5], 7).propose(10) == [6, 4, 5, 6, 4, 5, 6]


def test_nothing_is_drafted_without_a_repetition() -> None:
    assert PromptLookup(list(range(50)), 3).propose(10) == []
    assert PromptLookup([1], 3).propose(10) == []


def test_rejected_drafts_become_rare_and_accepted_ones_longer() -> None:
    lookup = PromptLookup([1, 2] * 10, 4)
    silent = []
    for _ in range(4):
        waited = 0
        while not lookup.propose(100):
            waited += 1
        silent.append(waited)
        lookup.record(4, 0)
    assert silent == [0, 1, 2, 4]
    while not lookup.propose(100):
        pass
    lookup.record(4, 4)
    assert len(lookup.propose(100)) == 8
    lookup.record(8, 3)
    assert len(lookup.propose(100)) == 4
    assert (lookup.drafted, lookup.accepted) == (28, 7)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 60))
def test_indexing_in_parts_equals_indexing_at_once(tokens: list[int], cut: int) -> None:
    bits = PromptLookup(tokens[:cut], 5)
    bits.extend(tokens[cut:])
    assert bits.propose(9) == PromptLookup(tokens, 5).propose(9)
    assert len(bits) == len(tokens)


def logprobs(candidate: CandidateResult) -> list[float]:
    found = [each.chosen.logprob for each in candidate.logprobs]
    assert len(found) == len(candidate.token_ids)
    return [each for each in found if each is not None]


def answer(
    bench: EngineBench, params: GenerationParams, prompt: Sequence[int]
) -> tuple[Any, Usage]:
    result = bench.run(list(prompt), params)
    return [each.token_ids for each in result.candidates], result.usage


def test_repetitive_text_needs_fewer_runs(
    make_bench: Callable[[], EngineBench], runs: list[ModelRun]
) -> None:
    plain = make_bench()
    plain.factory._draft_tokens = 0
    # A repetition penalty below one favours repetition.
    params = replace(greedy(80, ignore_eos=True), decoding=replace(GREEDY, repetition_penalty=0.3))
    expected, usage = answer(plain, params, PROMPT)
    assert (usage.drafted_tokens, len(runs)) == (0, 80)
    runs.clear()
    ours, usage = answer(make_bench(), params, PROMPT)
    assert ours == expected
    assert usage.accepted_tokens > 30
    assert len(runs) == 80 - usage.accepted_tokens
    assert usage.drafted_tokens >= usage.accepted_tokens


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0])
def test_speculation_keeps_the_sampled_tokens_of_a_seed(
    make_bench: Callable[[], EngineBench], temperature: float
) -> None:
    params = GenerationParams(
        decoding=SamplingParams(temperature=temperature, seed=7, repetition_penalty=0.8),
        stopping=StoppingParams(max_new_tokens=60, ignore_eos=True),
        output=OutputParams(logprobs=True),
    )
    plain = make_bench()
    plain.factory._draft_tokens = 0
    prompt = PROMPT * 5
    expected = plain.run(prompt, params).candidates
    speculative = make_bench().run(prompt, params)
    assert speculative.usage.drafted_tokens > 0
    for ours, theirs in zip(speculative.candidates, expected, strict=True):
        assert ours.token_ids == theirs.token_ids
        assert logprobs(ours) == pytest.approx(logprobs(theirs), abs=1e-4)


def test_drafts_respect_grammars_and_stopping_criteria(
    make_bench: Callable[[], EngineBench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Use grammars that force some tokens only, and stop strings."""
    # The vocabulary is so small that no grammar reaches the real threshold.
    monkeypatch.setattr(sampling_task, "_FREE_CHOICE", 1)
    accepted: Counter[str] = Counter()

    @settings(max_examples=100)
    @given(
        grammar=st.sampled_from(["(ab ?cd, )+", "([ab][xy][ab] please )+", "[ab]+", "(?s:.)*"]),
        decoding=st.builds(
            SamplingParams,
            temperature=st.sampled_from([0, 0.2]),
            seed=st.just(3),
            repetition_penalty=st.sampled_from([1.0, 0.3]),
        ),
        stopping=st.builds(
            StoppingParams,
            max_new_tokens=st.integers(30, 50),
            min_new_tokens=st.sampled_from([0, 9]),
            stop_strings=st.sampled_from([(), ("bb",), ("please a", "cd, ab")]),
        ),
        output=st.builds(OutputParams, logprobs=st.booleans()),
        draft_tokens=st.sampled_from([1, 4, 9]),
    )
    def check(grammar: str, draft_tokens: int, **params: Any) -> None:
        constraint = ConstraintParams(ConstraintKind.REGEX, (grammar,))
        results = []
        for drafts in (0, draft_tokens):
            bench = make_bench()
            bench.factory._draft_tokens = drafts
            results.append(bench.run(PROMPT * 5, GenerationParams(constraint=constraint, **params)))
            bench.assert_all_free()
        [expected], [ours] = (result.candidates for result in results)
        fields = ("token_ids", "text", "finish_reason", "stop_string")
        assert [getattr(ours, name) for name in fields] == [
            getattr(expected, name) for name in fields
        ]
        if params["output"].logprobs:
            assert logprobs(ours) == pytest.approx(logprobs(expected), abs=1e-3)
        usage = results[1].usage
        assert usage.forced_tokens == results[0].usage.forced_tokens
        accepted["tokens"] += usage.accepted_tokens
        accepted["beside forced ones"] += usage.accepted_tokens * (usage.forced_tokens > 0)

    check()
    assert min(accepted["tokens"], accepted["beside forced ones"]) > 0


def test_nothing_is_drafted_before_the_candidates_diverge(bench: EngineBench) -> None:
    """The second run has all but the last prompt token cached."""
    prompt = [*PROMPT, *PROMPT, *PROMPT]
    params = GenerationParams(
        decoding=SamplingParams(n=3, seed=5),
        stopping=StoppingParams(max_new_tokens=20, ignore_eos=True),
    )
    expected = bench.tokens(prompt, params)
    assert bench.tokens(prompt, params) == expected


def test_concurrent_streams_are_drafted_together(bench: EngineBench, runs: list[ModelRun]) -> None:
    params = greedy(40, ignore_eos=True)
    expected = bench.tokens(PROMPT, params)
    tasks = [bench.add(bench.task(PROMPT, params)) for _ in range(2)]
    runs.clear()
    bench.finish()
    results = [bench.result(task) for task in tasks]
    assert [list(each.candidates[0].token_ids) for each in results] == expected * 2
    assert all(result.usage.drafted_tokens > 0 for result in results)
    assert any(run.slots == 2 and run.tokens > 3 for run in runs)


def test_nothing_is_drafted_where_it_does_not_pay(
    bench: EngineBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PayingDrafts, "break_even", lambda _cost, _tokens: 1.0)
    task = bench.add(bench.task(PROMPT, greedy(40, ignore_eos=True)))
    bench.finish()
    assert bench.result(task).usage.drafted_tokens == 0


def choices(**options: Any) -> GenerationParams:
    return GenerationParams(
        decoding=GREEDY,
        stopping=StoppingParams(max_new_tokens=40),
        constraint=ConstraintParams(ConstraintKind.CHOICES, ("order 1", "cup", "order 2")),
        **options,
    )


def test_logits_that_a_grammar_excludes_are_not_computed(
    bench: EngineBench, runs: list[ModelRun]
) -> None:
    result = bench.run(PROMPT, choices())
    assert runs
    assert all(run.logit_ids is not None and len(run.logit_ids) < 10 for run in runs)
    assert result.candidates[0].cumulative_logprob is None


def test_log_probabilities_need_all_logits(bench: EngineBench, runs: list[ModelRun]) -> None:
    result = bench.run(PROMPT, choices(output=OutputParams(logprobs=True)))
    assert all(run.logit_ids is None for run in runs)
    [candidate] = result.candidates
    assert candidate.cumulative_logprob == pytest.approx(sum(logprobs(candidate)))


def test_beams_and_processors_need_all_logits(bench: EngineBench, runs: list[ModelRun]) -> None:
    bench.run(PROMPT, replace(choices(), decoding=BeamSearchParams(num_beams=2)))
    bench.run(PROMPT, replace(choices(), decoding=replace(GREEDY, repetition_penalty=1.2)))
    assert all(run.logit_ids is None for run in runs)


def test_concurrent_grammars_share_a_run(bench: EngineBench, runs: list[ModelRun]) -> None:
    grammars = [ConstraintParams(ConstraintKind.REGEX, (f"[{x}]{{6}}",)) for x in ("abc", "xyz")]
    mixed = [replace(choices(), constraint=grammar) for grammar in grammars]
    alone = [bench.tokens(PROMPT, params) for params in mixed]
    runs.clear()
    tasks = [bench.add(bench.task(PROMPT, params)) for params in mixed]
    bench.finish()
    together = [[list(c.token_ids) for c in bench.result(task).candidates] for task in tasks]
    assert together == alone
    assert any(run.tokens == 2 and run.logit_ids is not None for run in runs)


def test_a_fully_forced_answer_needs_no_run(bench: EngineBench, runs: list[ModelRun]) -> None:
    only = ConstraintParams(ConstraintKind.CHOICES, ("the only answer",))
    params = replace(choices(), constraint=only, decoding=SamplingParams(n=2))
    result = bench.run(PROMPT, params)
    assert [each.text for each in result.candidates] == ["the only answer"] * 2
    assert result.usage.forced_tokens > 0
    assert runs == []
