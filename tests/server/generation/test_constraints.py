"""Constrained generation: output obeys its grammar, and forced tokens are free."""

from dataclasses import replace

import pytest
from tests.support.engine_bench import EOS, EngineBench
from tests.support.generation_params import PROMPT, eos_params, greedy, greedy_tokens, run_single

from gpt2flow.server.engine.sequence import FinishReason
from gpt2flow.server.errors import InvalidRequestError
from gpt2flow.server.grammar.constraint import GrammarConstraint
from gpt2flow.server.params import (
    BeamSearchParams,
    ConstraintKind,
    ConstraintParams,
    GenerationParams,
    SamplingParams,
    StoppingParams,
)


def test_a_complete_output_ends_immediately(bench: EngineBench) -> None:
    params = replace(
        greedy(60), constraint=ConstraintParams(ConstraintKind.CHOICES, ("my order", "my cup"))
    )
    reason, tokens, text = run_single(bench, params)
    assert reason is FinishReason.CONSTRAINT
    assert text in {"my order", "my cup"}
    assert EOS not in tokens


def test_a_constraint_may_end_with_end_of_text_even_if_ignored(bench: EngineBench) -> None:
    params = replace(
        eos_params(ignore_eos=True), constraint=ConstraintParams(ConstraintKind.REGEX, ("QZ*",))
    )
    assert run_single(bench, params) == (FinishReason.EOS, [*bench.tokenizer.encode("Q"), EOS], "Q")


def test_candidates_share_forced_tokens(bench: EngineBench) -> None:
    params = GenerationParams(
        decoding=SamplingParams(n=3, seed=1),
        stopping=StoppingParams(max_new_tokens=40),
        constraint=ConstraintParams(ConstraintKind.CHOICES, ("my new address",)),
    )
    first, *others = bench.run(PROMPT, params).candidates
    assert first.text == "my new address"
    assert others == [first, first]


def test_candidates_may_diverge_within_a_character(bench: EngineBench) -> None:
    # These characters share their first two bytes.
    choices = ("戀", "我", "戒")
    params = GenerationParams(
        decoding=SamplingParams(n=4, seed=1, temperature=5.0),
        stopping=StoppingParams(max_new_tokens=40),
        constraint=ConstraintParams(ConstraintKind.CHOICES, choices),
    )
    result = bench.run(PROMPT, params)
    assert result.usage.forced_tokens > 0
    assert {candidate.text for candidate in result.candidates} <= set(choices)


@pytest.mark.parametrize("num_beams", [0, 1, 3])
def test_the_constraint_overrides_processors(bench: EngineBench, num_beams: int) -> None:
    decoding = (
        BeamSearchParams(num_beams=num_beams, no_repeat_ngram_size=1)
        if num_beams
        else SamplingParams(temperature=0, no_repeat_ngram_size=1)
    )
    constraint = ConstraintParams(ConstraintKind.REGEX, ("(x|y){6}",))
    params = replace(greedy(20), decoding=decoding, constraint=constraint)
    reason, _, text = run_single(bench, params)
    assert reason is FinishReason.CONSTRAINT
    assert len(text) == 6
    assert set(text) == {"x", "y"}


def test_forced_tokens_are_counted_and_run_in_chunks(bench: EngineBench) -> None:
    text = "please send it to my new address"
    params = replace(greedy(60), constraint=ConstraintParams(ConstraintKind.CHOICES, (text,)))
    task = bench.add(bench.task([5], params))
    steps = 0
    while bench.engine.busy:
        bench.step()
        steps += 1
    usage = bench.result(task).usage
    assert bench.result(task).candidates[0].text == text
    assert usage.forced_tokens == usage.completion_tokens > 4
    assert steps <= 1 + usage.completion_tokens // 8


def test_a_grammar_that_grows_too_complex_fails_its_request_only(
    bench: EngineBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt2flow.server.errors import GrammarError

    constrained = bench.add(
        bench.task(
            PROMPT,
            replace(greedy(60), constraint=ConstraintParams(ConstraintKind.REGEX, ("[ab]{50}",))),
        )
    )
    other = bench.add(bench.task(PROMPT, greedy(12)))

    def too_complex(_self: GrammarConstraint) -> None:
        raise GrammarError("too complex")

    monkeypatch.setattr(GrammarConstraint, "allowed", too_complex)
    bench.finish()
    outcome = bench.outcome(constrained)
    assert isinstance(outcome, InvalidRequestError)
    assert outcome.violations[0].field == "options.constraint"
    assert list(bench.result(other).candidates[0].token_ids) == greedy_tokens(bench)
