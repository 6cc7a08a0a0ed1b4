"""Filters, compared with transformers; draws and ranks, with a full sort."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.support.logits_oracle import VOCABULARY, by_transformers, random_scores
from transformers.generation import logits_process as hf

from gpt2flow.server.sampling import filters
from gpt2flow.server.sampling.filters import Floats
from gpt2flow.server.sampling.processors import forbid
from gpt2flow.server.sampling.sampler import draw

# Large enough to be split into groups, and not a multiple of their size.
LARGE = 50_257

seeds = st.integers(0, 2**32 - 1)


def kept(scores: Floats) -> list[int]:
    """Return the token ids that are not excluded."""
    return np.flatnonzero(np.isfinite(scores)).tolist()


@pytest.mark.parametrize(
    "keep,warper,values",
    [
        (filters.top_k, lambda k: hf.TopKLogitsWarper(int(k)), [1, 2, 7, 64, 199, 200, 500]),
        (filters.top_p, hf.TopPLogitsWarper, [1e-20, 0.001, 0.1, 0.5, 0.9, 0.99, 0.9999]),
        (filters.min_p, hf.MinPLogitsWarper, [0.001, 0.05, 0.3, 0.99]),
        (filters.typical_p, hf.TypicalLogitsWarper, [0.01, 0.2, 0.5, 0.9, 0.999]),
    ],
)
@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0, 20.0])
def test_filters_keep_the_tokens_of_transformers(
    keep: Callable[..., Any], warper: Callable[..., Any], values: list[float], spread: float
) -> None:
    for value in values:
        for seed in range(20):
            scores = random_scores(seed, spread=spread)
            expected = by_transformers(warper(value), [1], scores)
            assert keep(scores, value).tolist() == kept(expected), (value, seed)


@pytest.mark.parametrize(
    "keep,warper",
    [
        (lambda scores: filters.top_k(scores, 40), hf.TopKLogitsWarper(40)),
        (lambda scores: filters.top_p(scores, 0.9), hf.TopPLogitsWarper(0.9)),
        (lambda scores: filters.min_p(scores, 0.1), hf.MinPLogitsWarper(0.1)),
        (lambda scores: filters.typical_p(scores, 0.9), hf.TypicalLogitsWarper(0.9)),
    ],
)
def test_filters_ignore_excluded_tokens(keep: Callable[..., Any], warper: Any) -> None:
    for seed in range(20):
        scores = forbid(random_scores(seed), np.arange(0, VOCABULARY, 3))
        expected = by_transformers(warper, [1], scores)
        chosen = [place for place in keep(scores).tolist() if np.isfinite(scores[place])]
        assert chosen == kept(expected), seed


def test_ties_with_the_last_of_top_k_are_kept() -> None:
    scores = np.array([1, 3, 2, 2, 0], np.float32)
    assert filters.top_k(scores, 2).tolist() == [1, 2, 3]


def test_top_p_keeps_the_smallest_set_that_reaches_p() -> None:
    scores = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))
    assert filters.top_p(scores, 0.39).tolist() == [1]
    assert filters.top_p(scores, 0.41).tolist() == [1, 3]
    assert filters.top_p(scores, 0.71).tolist() == [1, 2, 3]
    assert filters.top_p(scores, 0.95).tolist() == [0, 1, 2, 3]


@given(seeds, st.integers(1, 1000), st.integers(1, 300))
def test_top_places_equal_those_of_a_full_sort(seed: int, size: int, count: int) -> None:
    scores = random_scores(seed, size=size)
    expected = np.argsort(-scores, kind="stable")[:count]
    assert filters.top_places(scores, count).tolist() == expected.tolist()


def test_top_places_skip_excluded_tokens() -> None:
    scores = np.full(1000, -np.inf, np.float32)
    scores[[3, 500, 999]] = [1, 3, 2]
    assert filters.top_places(scores, 3).tolist() == [500, 999, 3]


@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("p", [0.3, 0.9, 0.999])
def test_top_p_is_exact_for_a_large_vocabulary(spread: float, p: float) -> None:
    scores = random_scores(1, LARGE, spread)
    probabilities = np.sort(torch.softmax(torch.from_numpy(scores).double(), -1).numpy())[::-1]
    expected = int((np.cumsum(probabilities) < p).sum()) + 1
    # Rounding decides about tokens at the boundary.
    assert len(filters.top_p(scores, p)) == pytest.approx(expected, rel=2e-4, abs=1)
    ids = filters.top_p(scores, p)
    assert scores[ids].min() >= np.delete(scores, ids).max()


@given(seeds, st.sampled_from([1, 3, 63, 64, 65, 4096, 4161, LARGE]))
def test_the_total_equals_the_sum_in_double_precision(seed: int, size: int) -> None:
    values = np.abs(random_scores(seed, size))
    assert filters.total(values) == pytest.approx(values.sum(dtype=np.float64), rel=1e-6)


@pytest.mark.parametrize("size", [5, 4000, 5000, LARGE])
def test_draws_follow_the_probabilities(size: int) -> None:
    scores = random_scores(3, size, spread=2.0)
    expected = torch.softmax(torch.from_numpy(scores).double(), -1).numpy()
    numbers = (np.arange(4000) + 0.5) / 4000
    drawn = np.bincount([draw(scores, u) for u in numbers], minlength=size) / len(numbers)
    likely = np.argsort(-expected)[:20]
    # A token has one interval, except for up to one grid step at both ends of its group.
    np.testing.assert_allclose(drawn[likely], expected[likely], atol=2 / len(numbers))


@pytest.mark.parametrize("size", [100, LARGE])
@pytest.mark.parametrize("number", [0.0, 0.5, np.nextafter(1.0, 0.0)])
def test_excluded_tokens_are_never_drawn(size: int, number: float) -> None:
    for seed in range(20):
        scores = forbid(random_scores(seed, size), np.arange(0, size, 2))
        scores[-60:] = -np.inf
        assert np.isfinite(scores[draw(scores, number)])
    alone = np.full(size, -np.inf, np.float32)
    alone[size - 1] = -3
    assert draw(alone, number) == size - 1
