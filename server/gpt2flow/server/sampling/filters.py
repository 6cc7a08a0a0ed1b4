"""Filters of scores, softmax and top-k, without sorting a whole vocabulary.

Scores are float32 of any subset of the vocabulary; minus infinity marks a forbidden token. The
filters have the semantics of transformers' generation. They return the indices of the scores to
keep, ascending and never empty.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.intp]

_LOG2_E: Final = np.float32(np.log2(np.e))
GROUP: Final = 64
# Usual upper bound of the nucleus; a larger one costs a larger sort.
_USUAL_NUCLEUS: Final = 256


def top_k(scores: Floats, k: int) -> Ids:
    """Keep the k highest scores, and ties with the lowest of them."""
    if k >= len(scores):
        return np.arange(len(scores))
    indices = _at_least(scores, k)
    candidates = scores[indices]
    kept: Ids = indices[candidates >= np.partition(candidates, -k)[-k]]
    return kept


def top_p(scores: Floats, p: float) -> Ids:
    """Keep the smallest set of likeliest tokens whose probability reaches p."""
    weights = exponentials(scores, scores.max())
    mass = total(weights)
    indices = _at_least(scores, _USUAL_NUCLEUS)
    if weights[indices].sum(dtype=np.float64) <= p * mass:
        # Less likely scores cannot add up to more than the tail that is cut off.
        indices = np.flatnonzero(weights > (1 - p) * mass / len(scores))
    candidates = weights[indices]
    ascending = np.sort(candidates)
    cumulative = np.cumsum(ascending, dtype=np.float64)
    cumulative += mass - cumulative[-1]
    cut = int(cumulative.searchsorted((1 - p) * mass, side="right"))
    # The likeliest stays even where p is so small that 1 - p is 1.
    kept: Ids = indices[candidates >= ascending[min(cut, len(ascending) - 1)]]
    return kept


def min_p(scores: Floats, p: float) -> Ids:
    """Keep tokens at least p times as likely as the likeliest."""
    return np.flatnonzero(scores >= scores.max() + np.log(np.float32(p)))


def typical_p(scores: Floats, mass: float) -> Ids:
    """Keep tokens with the most typical surprisal, up to a probability mass.

    Source: Meister et al., "Locally Typical Sampling", 2022.
    """
    probs = probabilities(scores)
    with np.errstate(divide="ignore", invalid="ignore"):
        surprisal = -np.log(probs)
        entropy = np.nansum(probs * surprisal)
    distance = np.abs(surprisal - entropy)
    order = np.argsort(distance)
    reached = int((np.cumsum(probs[order]) < mass).sum())
    return np.flatnonzero(distance <= distance[order[min(reached, len(order) - 1)]])


def exponentials(scores: Floats, highest: np.float32) -> Floats:
    """Return exp(scores - highest), by `exp2`, which is NumPy's fastest."""
    exponents: Floats = scores - highest
    exponents *= _LOG2_E
    return np.exp2(exponents, out=exponents)


def total(values: Floats) -> float:
    """Return the sum, down columns first, then in float64.

    Summing down columns is twice as fast as along a row.
    """
    columns = len(values) // GROUP
    whole = columns * GROUP
    sums = values[:whole].reshape(GROUP, columns).sum(axis=0)
    return float(sums.sum(dtype=np.float64) + values[whole:].sum(dtype=np.float64))


def probabilities(scores: Floats) -> Floats:
    """Return the softmax of scores, at least one of which is finite."""
    probs = exponentials(scores, scores.max())
    probs /= np.float32(total(probs))
    return probs


def top_places(scores: Floats, count: int) -> Ids:
    """Return the indices of the highest scores, best first.

    Args:
        scores: Scores, of any length up to a few million.
        count: Number of indices; fewer are returned if there are fewer scores.
    """
    indices = _at_least(scores, count)
    return indices[np.argsort(-scores[indices], kind="stable")[:count]]


def _at_least(scores: Floats, count: int) -> Ids:
    """Return a superset of the indices of the `count` highest scores, ascending.

    It is usually little larger.
    """
    groups = len(scores) // GROUP
    if count >= groups:
        return np.arange(len(scores))
    # The maxima of `count` groups reach this threshold, so lower scores are not among the highest.
    # Groups are columns: maxima down columns are ten times as fast as along rows.
    maxima = scores[: groups * GROUP].reshape(GROUP, groups).max(axis=0)
    return np.flatnonzero(scores >= np.partition(maxima, -count)[-count])
