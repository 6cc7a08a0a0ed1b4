"""Sampling, compared with the distribution of transformers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.logits_oracle import random_scores
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from gpt2flow.server.params import BeamSearchParams, SamplingParams
from gpt2flow.server.sampling.filters import Floats
from gpt2flow.server.sampling.processors import make_processors, process
from gpt2flow.server.sampling.sampler import Sampler, make_rng

VOCABULARY = 60
PROMPT = [3, 5, 3, 9]
TOKENS = [*PROMPT, 3, 5, 7]


def random_logits(seed: int) -> Floats:
    return random_scores(seed, VOCABULARY, spread=3.0)


@pytest.fixture(scope="module")
def pipeline() -> Any:
    """Factory of the processors that transformers applies, in its order."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_layer=1, n_head=1, n_embd=8))

    def make(**options: Any) -> Any:
        config = GenerationConfig(do_sample=True, eos_token_id=0, **options)
        model._prepare_special_tokens(config)
        return model._get_logits_processor(config, input_ids_seq_length=len(PROMPT))

    return make


def softmax(scores: torch.Tensor) -> Floats:
    probabilities: Floats = torch.softmax(scores, dim=-1)[0].numpy()
    return probabilities


@settings(max_examples=examples(100))
@given(
    seed=st.integers(0, 2**32 - 1),
    options=st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.sampled_from([0.3, 0.7, 1.0, 2.0]),
            "top_k": st.sampled_from([1, 3, 20, 100]),
            "top_p": st.sampled_from([0.2, 0.8, 0.95]),
            "min_p": st.sampled_from([0.01, 0.2]),
            "typical_p": st.sampled_from([0.3, 0.9]),
            "repetition_penalty": st.sampled_from([0.7, 1.5]),
            "no_repeat_ngram_size": st.sampled_from([1, 2, 3]),
        },
    ),
    biased=st.booleans(),
    words=st.sampled_from([[], [[7, 11], [20]]]),
    min_new_tokens=st.sampled_from([0, 3, 4]),
)
def test_the_distribution_equals_that_of_transformers(
    pipeline: Any, seed: int, **case: Any
) -> None:
    options, words, min_new_tokens = case["options"], case["words"], case["min_new_tokens"]
    values = random_logits(seed)
    bias = {(3,): 2.5, (17,): -4.0} if case["biased"] else None
    processors = pipeline(
        **{"top_k": 0} | options,
        sequence_bias=bias,
        bad_words_ids=words or None,
        min_new_tokens=min_new_tokens,
    )
    scores = processors(torch.tensor([TOKENS]), torch.from_numpy(values.copy())[None])
    expected = softmax(scores)

    params = SamplingParams(**options, logit_bias=((3, 2.5), (17, -4.0)) if case["biased"] else ())
    sampler = Sampler(
        params,
        make_processors(params, bad_words=words, ending_ids=[0], min_new_tokens=min_new_tokens),
    )
    grid = (np.arange(300) + 0.5) / 300
    drawn = [sampler.choose(values, TOKENS, len(PROMPT), FixedRandom(u)) for u in grid]
    ours = np.bincount(np.array(drawn, np.intp), minlength=VOCABULARY) / len(grid)
    np.testing.assert_allclose(ours, expected, atol=1 / 150)


class FixedRandom(np.random.Generator):
    """Generator that always returns a fixed number."""

    def __init__(self, number: float) -> None:
        super().__init__(np.random.PCG64(0))
        self._number = number

    def random(self, *_args: Any, **_options: Any) -> Any:
        return self._number


def test_temperature_zero_chooses_the_likeliest_token() -> None:
    sampler = Sampler(SamplingParams(temperature=0, top_k=3, top_p=0.5), [])
    assert sampler.takes_argmax
    values = random_logits(1)
    assert sampler.choose(values, TOKENS, 4, make_rng(0, 0)) == values.argmax()


@pytest.mark.parametrize("temperature", [1e-45, 1e-38, 1e-31, 1e-29, 1e-9])
@pytest.mark.parametrize(
    "params", [SamplingParams(), SamplingParams(top_k=5), SamplingParams(top_p=0.5)]
)
def test_tiny_temperatures_choose_the_likeliest_token(
    temperature: float, params: SamplingParams
) -> None:
    values = random_logits(1)
    sampler = Sampler(replace(params, temperature=temperature), [])
    assert sampler.choose(values, TOKENS, 4, make_rng(0, 0)) == values.argmax()


def test_processors_apply_to_greedy_decoding() -> None:
    values = random_logits(1)
    best = int(values.argmax())
    params = SamplingParams(temperature=0, logit_bias=((best, -100.0),))
    sampler = Sampler(params, make_processors(params))
    assert not sampler.takes_argmax
    assert sampler.choose(values, TOKENS, 4, make_rng(0, 0)) == np.argsort(-values)[1]


def test_equal_seed_and_index_give_equal_random_numbers() -> None:
    def numbers(seed: int, index: int) -> list[float]:
        rng = make_rng(seed, index)
        return [float(rng.random()) for _ in range(5)]

    assert numbers(1, 0) == numbers(1, 0)
    assert numbers(2**64 - 1, 0) == numbers(2**64 - 1, 0)
    assert len({tuple(numbers(seed, index)) for seed in (1, 2) for index in (0, 1)}) == 4


@pytest.mark.parametrize("temperature", [0, 1])
def test_only_allowed_tokens_are_chosen(temperature: float) -> None:
    sampler = Sampler(SamplingParams(temperature=temperature), [])
    allowed = np.array([4, 8, 15], np.intp)
    rng = make_rng(0, 0)
    chosen = {sampler.choose(random_logits(i), TOKENS, 4, rng, allowed) for i in range(50)}
    assert chosen == {4, 8, 15}


def test_the_constraint_overrides_processors() -> None:
    params = SamplingParams(temperature=0)
    sampler = Sampler(params, make_processors(params, bad_words=[[4], [8]]))
    allowed = np.array([4, 8], np.intp)
    for best in (4, 8):
        values = random_logits(2)
        values[best] = 50
        assert sampler.choose(values, TOKENS, 4, make_rng(0, 0), allowed) == best


def test_no_token_is_chosen_when_all_are_excluded() -> None:
    params = SamplingParams()
    sampler = Sampler(params, make_processors(params, bad_words=[[i] for i in range(VOCABULARY)]))
    assert sampler.choose(random_logits(0), TOKENS, 4, make_rng(0, 0)) is None


def test_a_random_number_of_one_gives_a_possible_token() -> None:
    values = random_logits(0)
    values[-3:] = -np.inf
    sampler = Sampler(SamplingParams(), [])
    token = sampler.choose(values, TOKENS, 4, FixedRandom(1.0))
    assert token is not None
    assert values[token] > -np.inf


def test_sampling_does_not_modify_the_logits() -> None:
    values = random_logits(0)
    before = values.copy()
    params = SamplingParams(temperature=0.5, repetition_penalty=2.0, presence_penalty=1.0, top_k=3)
    Sampler(params, make_processors(params)).choose(values, TOKENS, 4, make_rng(0, 0))
    np.testing.assert_array_equal(values, before)


def test_presence_and_frequency_penalties_ignore_the_prompt() -> None:
    values = np.zeros(VOCABULARY, np.float32)
    params = SamplingParams(presence_penalty=0.5, frequency_penalty=1.0)
    scores = process(make_processors(params), values, [9, 9, 3, 3, 5], 2)
    assert scores[[9, 3, 5]].tolist() == [0, -2.5, -1.5]


def test_beam_search_applies_its_processors() -> None:
    params = BeamSearchParams(num_beams=2, repetition_penalty=2.0, no_repeat_ngram_size=2)
    values = np.full(VOCABULARY, -1.0, np.float32)
    scores = process(make_processors(params), values, [9, 3, 9], 2)
    assert scores[9] == -2
    assert scores[3] == -np.inf
