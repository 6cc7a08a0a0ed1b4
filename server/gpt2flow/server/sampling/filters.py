"""Which scores are the highest, and what chance each has: no full sort of a vocabulary.

Scores are float32 of any subset of the vocabulary; minus infinity marks a token
that must not follow. The filters look at them as a set, with the semantics of
transformers' generation, and return the places that are kept: ascending, never none.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.intp]

_LOG2_E: Final = np.float32(np.log2(np.e))
GROUP: Final = 64
# A nucleus is seldom larger; one that is costs a sort of more.
_USUAL_NUCLEUS: Final = 256


def top_k(scores: Floats, k: int) -> Ids:
    """Keep the k highest scores, and those that equal the lowest of them."""
    if k >= len(scores):
        return np.arange(len(scores))
    places = _at_least(scores, k)
    candidates = scores[places]
    kept: Ids = places[candidates >= np.partition(candidates, -k)[-k]]
    return kept


def top_p(scores: Floats, p: float) -> Ids:
    """Keep the smallest set of the likeliest whose probability reaches p."""
    weights = powers(scores, scores.max())
    mass = total(weights)
    places = _at_least(scores, _USUAL_NUCLEUS)
    if weights[places].sum(dtype=np.float64) <= p * mass:
        # Those that are this unlikely cannot add up to more than the tail that is cut.
        places = np.flatnonzero(weights > (1 - p) * mass / len(scores))
    candidates = weights[places]
    ascending = np.sort(candidates)
    cumulative = np.cumsum(ascending, dtype=np.float64)
    cumulative += mass - cumulative[-1]
    cut = int(cumulative.searchsorted((1 - p) * mass, side="right"))
    # The likeliest stays even where p is so small that 1 - p is 1.
    kept: Ids = places[candidates >= ascending[min(cut, len(ascending) - 1)]]
    return kept


def min_p(scores: Floats, p: float) -> Ids:
    """Keep what is at least p times as likely as the likeliest."""
    return np.flatnonzero(scores >= scores.max() + np.log(np.float32(p)))


def typical_p(scores: Floats, mass: float) -> Ids:
    """Keep the tokens whose surprise is closest to the expected one, up to a mass.

    Source: Meister et al., "Locally Typical Sampling", 2022.
    """
    chances = probabilities(scores)
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = -np.log(chances)
        entropy = np.nansum(chances * surprise)
    distance = np.abs(surprise - entropy)
    order = np.argsort(distance)
    reached = int((np.cumsum(chances[order]) < mass).sum())
    return np.flatnonzero(distance <= distance[order[min(reached, len(order) - 1)]])


def powers(scores: Floats, highest: np.float32, out: Floats | None = None) -> Floats:
    """Return e to the power of what each score is above the highest; NumPy's `exp2` is fastest."""
    exponents = np.subtract(scores, highest, out=out)
    exponents *= _LOG2_E
    return np.exp2(exponents, out=exponents)


def total(values: Floats) -> float:
    """Return the sum: of columns first, which is twice as fast as along a row, then exactly."""
    columns = len(values) // GROUP
    whole = columns * GROUP
    sums = values[:whole].reshape(GROUP, columns).sum(axis=0)
    return float(sums.sum(dtype=np.float64) + values[whole:].sum(dtype=np.float64))


def probabilities(scores: Floats) -> Floats:
    """Return the softmax of scores of which one at least is finite."""
    chances = powers(scores, scores.max())
    chances /= np.float32(total(chances))
    return chances


def top_places(scores: Floats, count: int) -> Ids:
    """Return the places of the highest scores, best first.

    Args:
        scores: [any number]; a few million at most.
        count: How many are wanted; all are returned when there are no more.
    """
    places = _at_least(scores, count)
    return places[np.argsort(-scores[places], kind="stable")[:count]]


def _at_least(scores: Floats, count: int) -> Ids:
    """Return places, ascending: those of the `count` highest scores, and usually few more."""
    groups = len(scores) // GROUP
    if count >= groups:
        return np.arange(len(scores))
    # `count` groups have a maximum of at least this, so that what is below it cannot be among
    # the highest. Groups are columns: maxima down columns are ten times faster than along rows.
    maxima = scores[: groups * GROUP].reshape(GROUP, groups).max(axis=0)
    return np.flatnonzero(scores >= np.partition(maxima, -count)[-count])
