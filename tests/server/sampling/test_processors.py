"""Logits processors, compared with those of transformers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.support.logits_oracle import VOCABULARY, by_transformers, random_scores
from transformers.generation import logits_process as hf

from gpt2flow.server.sampling import processors
from gpt2flow.server.sampling.filters import Ids
from gpt2flow.server.sampling.logits import LogitsRows

seeds = st.integers(0, 2**32 - 1)
histories = st.lists(st.integers(0, 9), min_size=1, max_size=30)


def history(tokens: list[int]) -> Ids:
    return np.array(tokens, np.intp)


@given(seeds, st.dictionaries(st.integers(0, VOCABULARY - 1), st.floats(-100, 100), min_size=1))
def test_logit_bias_equals_transformers(seed: int, biases: dict[int, float]) -> None:
    scores = random_scores(seed)
    sequence_bias = {(token,): bias for token, bias in biases.items()}
    expected = by_transformers(hf.SequenceBiasLogitsProcessor(sequence_bias), [1, 2], scores)
    ids, values = history(list(biases)), np.array(list(biases.values()), np.float32)
    np.testing.assert_allclose(processors.bias_tokens(scores, ids, values), expected, rtol=1e-6)


@given(seeds, histories, st.floats(0.1, 5))
def test_repetition_penalty_equals_transformers(
    seed: int, tokens: list[int], penalty: float
) -> None:
    scores = random_scores(seed)
    expected = by_transformers(hf.RepetitionPenaltyLogitsProcessor(penalty), tokens, scores)
    ours = processors.penalize_repetition(scores, history(tokens), penalty)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_presence_counts_once_and_frequency_per_occurrence() -> None:
    scores = np.zeros(4, np.float32)
    produced = history([2, 1, 2, 2])
    np.testing.assert_allclose(
        processors.penalize_occurrence(scores, produced, 0.5, 0), [0, -0.5, -0.5, 0]
    )
    np.testing.assert_allclose(
        processors.penalize_occurrence(scores, produced, 0, 0.5), [0, -0.5, -1.5, 0]
    )
    np.testing.assert_allclose(
        processors.penalize_occurrence(scores, produced, 1, -0.5), [0, -0.5, 0.5, 0]
    )


@given(seeds, histories, st.integers(1, 5))
def test_no_repeat_ngram_equals_transformers(seed: int, tokens: list[int], size: int) -> None:
    scores = random_scores(seed)
    expected = by_transformers(hf.NoRepeatNGramLogitsProcessor(size), tokens, scores)
    ours = processors.forbid(scores, processors.repeated_ngram_ends(history(tokens), size))
    np.testing.assert_array_equal(ours, expected)


@given(
    seeds,
    histories,
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=6),
)
def test_bad_words_equal_transformers(seed: int, tokens: list[int], words: list[list[int]]) -> None:
    scores = random_scores(seed)
    processor = hf.NoBadWordsLogitsProcessor(words, torch.tensor([VOCABULARY]))
    expected = by_transformers(processor, tokens, scores)
    ours = processors.forbid(
        scores, processors.bad_word_ends(history(tokens), [history(w) for w in words])
    )
    np.testing.assert_array_equal(ours, expected)


@given(seeds, st.integers(1, 5))
def test_logprobs_and_ranks_of_rows_equal_torch(seed: int, rows: int) -> None:
    values = random_scores(seed, size=rows * VOCABULARY).reshape(rows, VOCABULARY)
    ours = LogitsRows(values)
    expected = torch.log_softmax(torch.from_numpy(values), dim=-1)
    assert ours.argmax == values.argmax(axis=1).tolist()
    for row in range(rows):
        assert ours.logprob(row, 5) == pytest.approx(float(expected[row, 5]), abs=1e-5)
        best = torch.topk(expected[row], 3)
        assert [token for token, _ in ours.top(row, 3)] == best.indices.tolist()
        assert [score for _, score in ours.top(row, 3)] == pytest.approx(
            best.values.tolist(), abs=1e-5
        )


def test_processors_do_not_modify_their_arguments() -> None:
    scores = random_scores(0)
    before = scores.copy()
    ids = history([1, 2, 2])
    processors.bias_tokens(scores, ids, np.ones(3, np.float32))
    processors.penalize_repetition(scores, ids, 2.0)
    processors.penalize_occurrence(scores, ids, 1.0, 1.0)
    processors.forbid(scores, ids)
    np.testing.assert_array_equal(scores, before)
