"""Outputs that are entries of a stored list, compared with transformers."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.engine_bench import CONTEXT, EOS, EngineBench
from tests.support.generation_params import PROMPT
from transformers import GPT2LMHeadModel

from gpt2flow.server.bundle.model_runner import ModelRunner
from gpt2flow.server.engine.sequence import FinishReason
from gpt2flow.server.errors import InvalidRequestError
from gpt2flow.server.grammar.constraint import GrammarCompiler
from gpt2flow.server.grammar.trie import TokenTrie
from gpt2flow.server.limits import Limits
from gpt2flow.server.params import (
    BeamSearchParams,
    ConstraintKind,
    ConstraintParams,
    EarlyStopping,
    GenerationParams,
    OutputParams,
    SamplingParams,
    StoppingParams,
)
from gpt2flow.server.tokenizer.tokenizer import Tokenizer

BEAMS = 64
ENTRIES = 4000
CONSTRAINT = ConstraintParams(ConstraintKind.STORED_CHOICES, ("articles",))


@pytest.fixture(scope="module")
def entries() -> list[str]:
    """Names of articles, some of which start others."""
    rng = np.random.default_rng(5)
    parts = ["blue", "red", "cup", "cap", "order", "12", "my", "new", "杯子", "é", "-", "address"]
    names = set[str]()
    while len(names) < ENTRIES:
        names.add(" ".join(rng.choice(parts, rng.integers(1, 5))))
    return sorted(names)


@pytest.fixture(scope="module")
def sequences(entries: list[str], tokenizer: Tokenizer) -> list[list[int]]:
    return [[*tokenizer.encode(entry), EOS] for entry in entries]


@pytest.fixture(scope="module")
def wide_runner(bundle: Path) -> ModelRunner:
    return ModelRunner(bundle / "model.onnx", slots=BEAMS, capacity=CONTEXT, threads=1)


@pytest.fixture
def wide(
    wide_runner: ModelRunner,
    limits: Limits,
    tokenizer: Tokenizer,
    grammars: GrammarCompiler,
    sequences: list[list[int]],
) -> Iterator[EngineBench]:
    """Bench with a slot for each beam, and a stored list."""
    bench = EngineBench(
        wide_runner,
        replace(limits, max_sequences=BEAMS, default_max_new_tokens=40),
        tokenizer,
        grammars,
        slots=BEAMS,
        choices={"articles": TokenTrie.build(sequences)},
    )
    yield bench
    bench.finish()
    bench.assert_all_free()


def beams(count: int = BEAMS, **options: object) -> GenerationParams:
    decoding = BeamSearchParams(
        num_beams=count,
        num_return_sequences=count,
        **options,  # type: ignore[arg-type]
    )
    return GenerationParams(decoding=decoding, constraint=CONSTRAINT)


def transformers_beams(
    model: GPT2LMHeadModel,
    prompt: Sequence[int],
    sequences: Sequence[Sequence[int]],
    **options: object,
) -> tuple[list[list[int]], list[float]]:
    """Return tokens and scores of the entries that transformers finds."""
    following: dict[tuple[int, ...], set[int]] = {}
    for sequence in sequences:
        for at, token_id in enumerate(sequence):
            following.setdefault(tuple(sequence[:at]), set()).add(token_id)

    def allowed(_batch: int, tokens: torch.Tensor) -> list[int]:
        # A beam beyond the number of continuations is at no entry, and has no probability.
        return sorted(following.get(tuple(tokens[len(prompt) :].tolist()), {EOS}))

    with torch.no_grad():
        output = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            do_sample=False,
            pad_token_id=EOS,
            max_new_tokens=max(map(len, sequences)),
            prefix_allowed_tokens_fn=allowed,
            return_dict_in_generate=True,
            output_scores=True,
            **options,
        )
    rows = output.sequences[:, len(prompt) :].tolist()
    return [row[: row.index(EOS) + 1] for row in rows], output.sequences_scores.tolist()


def log_likelihood(model: GPT2LMHeadModel, tokens: list[int]) -> float:
    """Return the log-likelihood of tokens after the prompt, from transformers."""
    with torch.no_grad():
        logprobs = model(torch.tensor([PROMPT + tokens])).logits[0].log_softmax(-1)
    start = len(PROMPT) - 1
    return sum(float(logprobs[start + at, token]) for at, token in enumerate(tokens))


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("early_stopping", [EarlyStopping.HEURISTIC, EarlyStopping.NEVER])
def test_wide_beams_equal_transformers(
    wide: EngineBench,
    reference: GPT2LMHeadModel,
    sequences: list[list[int]],
    length_penalty: float,
    early_stopping: EarlyStopping,
) -> None:
    expected, scores = transformers_beams(
        reference,
        PROMPT,
        sequences,
        num_beams=BEAMS,
        num_return_sequences=BEAMS,
        length_penalty=length_penalty,
        early_stopping=early_stopping.value,
    )
    result = wide.run(
        PROMPT, beams(length_penalty=length_penalty, early_stopping=early_stopping)
    ).candidates
    assert [each.beam_score for each in result] == pytest.approx(scores, rel=1e-5, abs=1e-4)
    # Two entries may have equal scores up to rounding, in either order.
    score_of = dict(zip(map(tuple, expected), scores, strict=True))
    assert len(score_of) == len({each.token_ids for each in result}) == BEAMS
    ranked = [score_of[each.token_ids] for each in result]
    assert ranked == pytest.approx(scores, rel=1e-5, abs=1e-4)


def test_each_entry_is_found_once_with_its_log_likelihood(
    wide: EngineBench, reference: GPT2LMHeadModel, entries: list[str], tokenizer: Tokenizer
) -> None:
    few = entries[:BEAMS]
    assert any(other.startswith(one) for one in few for other in few if one != other)
    trie = TokenTrie.build([*tokenizer.encode(entry), EOS] for entry in few)
    wide.factory._choices = {"articles": trie}
    found = wide.run(PROMPT, beams(length_penalty=0.0)).candidates
    assert sorted(each.text for each in found) == few
    assert {each.finish_reason for each in found} == {FinishReason.EOS}
    scores = [each.beam_score for each in found]
    assert scores == sorted(scores, reverse=True)
    for each in found:
        total = log_likelihood(reference, list(each.token_ids))
        assert each.beam_score == pytest.approx(total, abs=1e-3)
        assert each.cumulative_logprob == pytest.approx(total, abs=1e-3)


def test_ignored_ends_count_only_where_an_entry_starts_another(
    wide: EngineBench, reference: GPT2LMHeadModel, entries: list[str], tokenizer: Tokenizer
) -> None:
    few = entries[:BEAMS]
    ids = {entry: tokenizer.encode(entry) for entry in few}
    wide.factory._choices = {"articles": TokenTrie.build([*each, EOS] for each in ids.values())}
    stopping = StoppingParams(ignore_eos=True)
    found = wide.run(PROMPT, replace(beams(length_penalty=0.0), stopping=stopping)).candidates
    assert sorted(each.text for each in found) == few
    for each in found:
        starts_another = any(
            other[: len(ids[each.text])] == ids[each.text] and entry != each.text
            for entry, other in ids.items()
        )
        reason = FinishReason.EOS if starts_another else FinishReason.CONSTRAINT
        assert each.finish_reason is reason
        assert list(each.token_ids) == ids[each.text] + [EOS] * starts_another
        expected = log_likelihood(reference, list(each.token_ids))
        assert each.beam_score == pytest.approx(expected, abs=1e-3)
    reasons = {each.finish_reason for each in found}
    assert reasons == {FinishReason.EOS, FinishReason.CONSTRAINT}


@pytest.mark.parametrize("logprobs", [False, True])
def test_sampled_outputs_are_entries(
    wide: EngineBench, entries: list[str], *, logprobs: bool
) -> None:
    params = GenerationParams(
        decoding=SamplingParams(n=16, seed=3, temperature=2.0),
        constraint=CONSTRAINT,
        output=OutputParams(logprobs=logprobs),
    )
    result = wide.run(PROMPT, params)
    texts = {each.text for each in result.candidates}
    assert texts <= set(entries)
    assert len(texts) > 4
    assert result.usage.forced_tokens > 0
    for each in result.candidates:
        assert each.token_ids[-1] == EOS
        assert len(each.logprobs) == (len(each.token_ids) if logprobs else 0)


def test_a_list_of_one_entry_needs_no_run(wide: EngineBench, tokenizer: Tokenizer) -> None:
    wide.factory._choices = {"articles": TokenTrie.build([[*tokenizer.encode("blue cup"), EOS]])}
    result = wide.run(PROMPT, GenerationParams(constraint=CONSTRAINT))
    assert result.candidates[0].text == "blue cup"
    assert result.usage.forced_tokens == result.usage.completion_tokens
    assert sum(sum(each.counts) for each in wide.engine.runs.seconds.values()) == 0


@pytest.mark.parametrize("num_beams", [1, 8])
def test_without_an_end_token_an_output_ends_as_it_is_whole(
    wide: EngineBench, tokenizer: Tokenizer, num_beams: int
) -> None:
    texts = ("blue cup", "red cup", "new address")
    wide.factory._choices = {"articles": TokenTrie.build(tokenizer.encode(each) for each in texts)}
    wide.factory._eos_token_ids = []
    found = wide.run(PROMPT, beams(num_beams)).candidates
    assert {each.text for each in found} <= set(texts)
    assert len({each.text for each in found}) == min(num_beams, len(texts))
    assert {each.finish_reason for each in found} == {FinishReason.CONSTRAINT}


def test_an_unknown_list_is_refused_with_the_known_ones(wide: EngineBench) -> None:
    wide.factory._choices = {**wide.factory._choices, "colours": wide.factory._choices["articles"]}
    constraint = ConstraintParams(ConstraintKind.STORED_CHOICES, ("nothing",))
    with pytest.raises(InvalidRequestError) as caught:
        wide.task(PROMPT, GenerationParams(constraint=constraint))
    [violation] = caught.value.violations
    assert violation.field == "options.constraint.stored_choices"
    assert violation.description == (
        "is 'nothing', must be one of the stored lists: articles, colours"
    )


def test_a_limit_below_the_longest_entry_is_refused(
    wide: EngineBench, sequences: list[list[int]]
) -> None:
    longest = max(map(len, sequences))
    fits = replace(beams(4), stopping=StoppingParams(max_new_tokens=longest))
    assert len(wide.run(PROMPT, fits).candidates) == 4
    short = replace(beams(4), stopping=StoppingParams(max_new_tokens=longest - 1))
    with pytest.raises(InvalidRequestError) as caught:
        wide.task(PROMPT, short)
    [violation] = caught.value.violations
    assert violation.field == "options.stopping.max_new_tokens"
    assert violation.description == (
        f"allows {longest - 1} new tokens, must allow {longest}: the longest entry of 'articles' "
        "with its end"
    )


def test_beams_beyond_the_slots_are_refused_with_the_option(wide: EngineBench) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        wide.task(PROMPT, beams(BEAMS + 1))
    [violation] = caught.value.violations
    assert violation.field == "options.beam_search.num_beams"
    assert violation.description == (
        f"must be in [1, {BEAMS}]: each beam takes a slot of the KV cache (--max-sequences)"
    )
