"""Beam search, compared with transformers."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.engine_bench import EOS, EngineBench
from tests.support.examples import examples
from tests.support.generation_params import PROMPT
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from gpt2flow.server.bundle.model_runner import ModelRunner
from gpt2flow.server.engine.kv_cache import CacheCopy
from gpt2flow.server.engine.sequence import FinishReason
from gpt2flow.server.params import (
    BeamSearchParams,
    ConstraintKind,
    ConstraintParams,
    EarlyStopping,
    GenerationParams,
    StoppingParams,
)


def transformers_beams(
    model: GPT2LMHeadModel, prompt: Sequence[int], *, stop: Sequence[int] = (), **options: Any
) -> tuple[list[list[int]], list[float]]:
    """Return token ids and scores of the hypotheses that transformers finds."""
    ends = [EOS, *stop]
    with torch.no_grad():
        output = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=EOS,
            return_dict_in_generate=True,
            output_scores=True,
            **options,
        )
    sequences = []
    for row in output.sequences[:, len(prompt) :].tolist():
        end = next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
        sequences.append(row[:end])
    return sequences, output.sequences_scores.tolist()


@settings(max_examples=examples(60))
@given(
    prompt=st.lists(st.integers(1, 300), min_size=1, max_size=20),
    options=st.fixed_dictionaries(
        {
            "num_beams": st.integers(2, 6),
            "length_penalty": st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]),
            "repetition_penalty": st.sampled_from([1.0, 1.3, 0.8]),
            "no_repeat_ngram_size": st.sampled_from([0, 1, 2, 3]),
        }
    ),
    returned=st.integers(1, 6),
    early_stopping=st.sampled_from(EarlyStopping),
    max_new_tokens=st.integers(1, 24),
    ends=st.sets(st.integers(0, 60), max_size=12),
)
def test_beam_search_equals_transformers_token_for_token(
    make_bench: Callable[[], EngineBench],
    reference: GPT2LMHeadModel,
    prompt: list[int],
    **case: Any,
) -> None:
    options = case["options"] | {
        "num_return_sequences": min(case["returned"], case["options"]["num_beams"])
    }
    # Stop on likely tokens, so that many hypotheses end, and at different lengths.
    likely = [
        token
        for candidate in transformers_beams(
            reference, prompt, num_beams=6, num_return_sequences=6, max_new_tokens=10
        )[0]
        for token in candidate
    ]
    stop = sorted({likely[at] for at in case["ends"] if at < len(likely)} - {EOS})
    expected, scores = transformers_beams(
        reference,
        prompt,
        stop=stop,
        early_stopping=case["early_stopping"].value,
        max_new_tokens=case["max_new_tokens"],
        **options,
    )
    params = GenerationParams(
        decoding=BeamSearchParams(**options, early_stopping=case["early_stopping"]),
        stopping=StoppingParams(max_new_tokens=case["max_new_tokens"], stop_token_ids=tuple(stop)),
    )
    bench = make_bench()
    result = bench.run(prompt, params)
    assert [list(each.token_ids) for each in result.candidates] == expected
    assert [each.beam_score for each in result.candidates] == pytest.approx(
        scores, rel=1e-5, abs=1e-4
    )
    bench.assert_all_free()


@settings(max_examples=examples(60))
@given(
    prompt=st.lists(st.integers(1, 300), min_size=1, max_size=20),
    num_beams=st.integers(2, 5),
    biases=st.dictionaries(
        st.integers(0, 300), st.sampled_from([-100.0, -2.5, 0.5, 3.0, 100.0]), max_size=12
    ),
    words=st.lists(
        st.sampled_from(["e", "er", "cup", "my", ", ", "保", "<|endoftext|>"]), max_size=4
    ),
    penalty=st.sampled_from([1.0, 1.3]),
)
def test_biases_and_bad_words_equal_transformers(
    make_bench: Callable[[], EngineBench],
    reference: GPT2LMHeadModel,
    prompt: list[int],
    **case: Any,
) -> None:
    bench, biases, words = make_bench(), case["biases"], case["words"]
    options: dict[str, Any] = {
        "num_beams": case["num_beams"],
        "num_return_sequences": case["num_beams"],
        "repetition_penalty": case["penalty"],
    }
    ids = [bench.tokenizer.encode(text) for word in words for text in (word, f" {word}")]
    expected, scores = transformers_beams(
        reference,
        prompt,
        sequence_bias={(token_id,): bias for token_id, bias in biases.items()} or None,
        bad_words_ids=ids or None,
        max_new_tokens=12,
        **options,
    )
    decoding = BeamSearchParams(**options, logit_bias=tuple(biases.items()), bad_words=tuple(words))
    params = GenerationParams(decoding=decoding, stopping=StoppingParams(max_new_tokens=12))
    result = bench.run(prompt, params)
    assert [list(each.token_ids) for each in result.candidates] == expected
    assert [each.beam_score for each in result.candidates] == pytest.approx(
        scores, rel=1e-5, abs=1e-4
    )
    bench.assert_all_free()


def test_the_search_continues_when_all_the_likeliest_hypotheses_end(
    bench: EngineBench, reference: GPT2LMHeadModel
) -> None:
    with torch.no_grad():
        likeliest = reference(torch.tensor([PROMPT])).logits[0, -1].topk(8).indices.tolist()
    options: dict[str, Any] = {"num_beams": 2, "num_return_sequences": 2, "length_penalty": 2.0}
    expected, _ = transformers_beams(
        reference, PROMPT, stop=likeliest, early_stopping="never", max_new_tokens=8, **options
    )
    assert max(map(len, expected)) > 1
    params = GenerationParams(
        decoding=BeamSearchParams(**options, early_stopping=EarlyStopping.NEVER),
        stopping=StoppingParams(max_new_tokens=8, stop_token_ids=tuple(likeliest)),
    )
    assert bench.tokens(PROMPT, params) == expected


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("penalty", [-100.0, 100.0])
def test_length_penalties_beyond_the_float_range_end_the_search(
    bench: EngineBench, penalty: float
) -> None:
    decoding = BeamSearchParams(num_beams=2, num_return_sequences=2, length_penalty=penalty)
    stopping = StoppingParams(max_new_tokens=40, ignore_eos=True)
    tokens = bench.tokens(PROMPT, GenerationParams(decoding=decoding, stopping=stopping))
    assert [len(each) for each in tokens] == [40, 40]


def log_likelihood(model: GPT2LMHeadModel, prompt: list[int], tokens: list[int]) -> float:
    """Return the log-likelihood of `tokens` after the prompt, from transformers."""
    with torch.no_grad():
        logprobs = model(torch.tensor([prompt + tokens])).logits[0].log_softmax(-1)
    return sum(float(logprobs[len(prompt) + at - 1, token]) for at, token in enumerate(tokens))


def test_enough_beams_rank_all_outputs_of_a_grammar(
    bench: EngineBench, reference: GPT2LMHeadModel
) -> None:
    choices = ("cup", "cups", "order", "no")
    params = GenerationParams(
        decoding=BeamSearchParams(num_beams=6, num_return_sequences=6, length_penalty=1.0),
        stopping=StoppingParams(max_new_tokens=12),
        constraint=ConstraintParams(ConstraintKind.CHOICES, choices),
    )
    candidates = bench.run(PROMPT, params).candidates
    assert {candidate.text for candidate in candidates} == set(choices)
    for candidate in candidates:
        tokens = list(candidate.token_ids)
        expected = log_likelihood(reference, PROMPT, tokens)
        assert candidate.cumulative_logprob == pytest.approx(expected, abs=1e-3)
        assert candidate.beam_score == pytest.approx(expected / len(tokens), abs=1e-3)
    scores = [candidate.beam_score for candidate in candidates]
    assert scores == sorted(scores, reverse=True)


def test_the_number_of_hypotheses_may_shrink_and_grow(bench: EngineBench) -> None:
    params = GenerationParams(
        decoding=BeamSearchParams(
            num_beams=4, num_return_sequences=4, early_stopping=EarlyStopping.NEVER
        ),
        stopping=StoppingParams(max_new_tokens=12),
        constraint=ConstraintParams(ConstraintKind.REGEX, ("[QXZ]J|K~[0-9]!",)),
    )
    candidates = bench.run(PROMPT, params).candidates
    assert len({candidate.text for candidate in candidates}) == 4
    for candidate in candidates:
        assert re.fullmatch("[QXZ]J|K~[0-9]!", candidate.text)


@settings(max_examples=examples(20))
@given(
    prompt=st.lists(st.integers(1, 300), min_size=1, max_size=10),
    num_beams=st.integers(1, 4),
)
def test_constrained_beams_obey_their_grammar(
    make_bench: Callable[[], EngineBench], prompt: list[int], num_beams: int
) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["cup", "hat"]}, "amount": {"type": "integer"}},
        "required": ["name", "amount"],
        "additionalProperties": False,
    }
    params = GenerationParams(
        decoding=BeamSearchParams(num_beams=num_beams, num_return_sequences=num_beams),
        stopping=StoppingParams(max_new_tokens=60),
        constraint=ConstraintParams(ConstraintKind.JSON_SCHEMA, (json.dumps(schema),)),
    )
    bench = make_bench()
    candidates = bench.run(prompt, params).candidates
    assert candidates
    for candidate in candidates:
        if candidate.finish_reason is FinishReason.LENGTH:
            assert candidate.text.startswith('{"name":')
        else:
            output = json.loads(candidate.text)
            assert output["name"] in {"cup", "hat"}
            assert isinstance(output["amount"], int)
    bench.assert_all_free()


@settings(max_examples=examples(40))
@given(
    prompt=st.lists(st.integers(1, 300), min_size=1, max_size=10),
    stops=st.lists(st.sampled_from(["er", "a", ", ", '"', "new", "o"]), min_size=1, max_size=2),
)
def test_stop_strings_end_hypotheses_as_in_transformers(
    make_bench: Callable[[], EngineBench],
    reference: GPT2LMHeadModel,
    checkpoint: Path,
    prompt: list[int],
    stops: list[str],
) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(checkpoint / "tokenizer.json"))
    with torch.no_grad():
        expected = reference.generate(
            torch.tensor([prompt]),
            do_sample=False,
            num_beams=4,
            max_new_tokens=16,
            pad_token_id=EOS,
            stop_strings=stops,
            tokenizer=tokenizer,
        )[0, len(prompt) :].tolist()
    bench = make_bench()
    params = GenerationParams(
        decoding=BeamSearchParams(num_beams=4),
        stopping=StoppingParams(max_new_tokens=16, stop_strings=tuple(stops)),
    )
    [candidate] = bench.run(prompt, params).candidates
    assert list(candidate.token_ids) == expected[: len(candidate.token_ids)]
    assert set(expected[len(candidate.token_ids) :]) <= {EOS}
    whole = bench.tokenizer.decode(candidate.token_ids)
    if candidate.finish_reason is FinishReason.STOP:
        assert whole.startswith(candidate.text + candidate.stop_string)
        assert candidate.stop_string in stops
    assert not any(stop in candidate.text for stop in stops)


def test_only_positions_that_differ_are_copied(
    bench: EngineBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans: list[tuple[int, int]] = []
    copy = ModelRunner.copy

    def record(runner: ModelRunner, copies: list[CacheCopy]) -> None:
        spans.extend((each.start, each.stop) for each in copies)
        copy(runner, copies)

    monkeypatch.setattr(ModelRunner, "copy", record)
    prompt = PROMPT * 8
    decoding = BeamSearchParams(num_beams=4)
    bench.run(
        prompt, GenerationParams(decoding=decoding, stopping=StoppingParams(max_new_tokens=20))
    )
    assert spans.count((0, len(prompt))) == 3
    assert len(spans) > 3
    assert all(start >= len(prompt) for start, _ in spans[3:])
