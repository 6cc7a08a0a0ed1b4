"""Logits processors: pure NumPy functions with the semantics of transformers' generation.

Scores are float32 [vocabulary] or, where a function says so, of any subset of
it; minus infinity marks a token that must not follow. Functions return new
arrays and leave their arguments alone.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.intp]

_BLOCK = 64


class LogitsRows:
    """The logits of one run of the model, with what all its rows need, computed at once.

    Attributes:
        values: float32 [rows, vocabulary].
    """

    def __init__(self, values: Floats) -> None:
        self.values = values

    @cached_property
    def argmax(self) -> list[int]:
        """The likeliest token of each row."""
        ids: list[int] = self.values.argmax(axis=-1).tolist()
        return ids

    @cached_property
    def logsumexp(self) -> Floats:
        """The logarithm of the sum of exponentials of each row: [rows]."""
        highest = self.values[np.arange(len(self.values)), self.argmax]
        powers = np.exp(self.values - highest[:, np.newaxis])
        logsumexp: Floats = highest + np.log(powers.sum(axis=-1))
        return logsumexp

    def logprob(self, row: int, token_id: int) -> float:
        """Returns the natural logarithm of a token's probability."""
        return float(self.values[row, token_id] - self.logsumexp[row])

    def top(self, row: int, count: int) -> list[tuple[int, float]]:
        """Returns the likeliest tokens of a row with their log-probabilities, best first."""
        best: list[int] = top_places(self.values[row], count).tolist()
        return [(token_id, self.logprob(row, token_id)) for token_id in best]

    @property
    def log_softmax(self) -> Floats:
        """Log-probabilities: [rows, vocabulary]."""
        return self.values - self.logsumexp[:, None]


def bias_tokens(scores: Floats, ids: Ids, biases: Floats) -> Floats:
    """Adds a value to the scores of single tokens."""
    scores = scores.copy()
    np.add.at(scores, ids, biases)
    return scores


def penalise_repetition(scores: Floats, tokens: Ids, penalty: float) -> Floats:
    """Divides positive and multiplies negative scores of all tokens seen so far.

    Args:
        scores: [vocabulary].
        tokens: The prompt and what was produced.
        penalty: Above 1 discourages.
    """
    scores = scores.copy()
    seen = scores[tokens]
    # A token that stands twice gets the same value twice.
    scores[tokens] = np.where(seen < 0, seen * np.float32(penalty), seen / np.float32(penalty))
    return scores


def penalise_occurrence(scores: Floats, produced: Ids, presence: float, frequency: float) -> Floats:
    """Subtracts from produced tokens: `presence` once, `frequency` for each occurrence.

    These two are not in transformers; the definition is the OpenAI API's.
    """
    counts = np.bincount(produced, minlength=len(scores))
    penalty = presence * (counts > 0) + frequency * counts
    return scores - penalty.astype(np.float32)


def forbid(scores: Floats, ids: Ids) -> Floats:
    """Forbids tokens."""
    scores = scores.copy()
    scores[ids] = -np.inf
    return scores


def repeated_ngram_ends(tokens: Ids, size: int) -> Ids:
    """Returns the tokens that would complete an n-gram which stands in `tokens` already."""
    if len(tokens) < size:
        return np.empty(0, np.intp)
    if size == 1:
        return tokens
    windows = np.lib.stride_tricks.sliding_window_view(tokens, size)
    last = tokens[len(tokens) - size + 1 :]
    ends: Ids = windows[(windows[:, :-1] == last).all(axis=1), -1]
    return ends


def bad_word_ends(tokens: Ids, bad_words: Sequence[Ids]) -> Ids:
    """Returns the tokens that would complete one of the forbidden token sequences."""
    ends = [
        word[-1]
        for word in bad_words
        if len(word) == 1
        or (len(word) <= len(tokens) and (tokens[len(tokens) + 1 - len(word) :] == word[:-1]).all())
    ]
    return np.array(ends, np.intp)


# The functions below look at scores as a set: they take the scores of any
# subset of the vocabulary and return a mask of what is kept, never empty.


def keep_top_k(scores: Floats, k: int) -> npt.NDArray[np.bool_]:
    """Keeps the k highest scores, and those that equal the lowest of them."""
    if k >= len(scores):
        return np.ones(len(scores), np.bool_)
    mask: npt.NDArray[np.bool_] = scores >= np.partition(scores, -k)[-k]
    return mask


def keep_top_p(scores: Floats, p: float) -> npt.NDArray[np.bool_]:
    """Keeps the smallest set of the likeliest whose probability reaches p."""
    probabilities = softmax(scores)
    # Those that are this unlikely cannot add up to more than the tail that is cut, so only the
    # others, which are few, are sorted.
    ascending = np.sort(probabilities[probabilities > (1 - p) / len(scores)])
    cumulative = np.cumsum(ascending, dtype=np.float64)
    cumulative += 1 - cumulative[-1]
    mask: npt.NDArray[np.bool_] = probabilities >= ascending[(cumulative > 1 - p).argmax()]
    return mask


def keep_min_p(scores: Floats, p: float) -> npt.NDArray[np.bool_]:
    """Keeps what is at least p times as likely as the likeliest."""
    mask: npt.NDArray[np.bool_] = scores >= scores.max() + np.log(np.float32(p))
    return mask


def keep_typical(scores: Floats, mass: float) -> npt.NDArray[np.bool_]:
    """Keeps the tokens whose surprise is closest to the expected one, up to a mass.

    Source: Meister et al., "Locally Typical Sampling", 2022.
    """
    probabilities = softmax(scores)
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = -np.log(probabilities)
        entropy = np.nansum(probabilities * surprise)
    distance = np.abs(surprise - entropy)
    order = np.argsort(distance, kind="stable")
    reached = int((np.cumsum(probabilities[order]) < mass).sum())
    mask: npt.NDArray[np.bool_] = distance <= distance[order[min(reached, len(order) - 1)]]
    return mask


def softmax(scores: Floats) -> Floats:
    """Returns the probabilities of finite or minus infinite scores, of which one is finite."""
    powers = np.exp(scores - scores.max())
    probabilities: Floats = powers / powers.sum()
    return probabilities


def top_places(scores: Floats, count: int) -> Ids:
    """Returns the places of the highest scores, best first.

    Args:
        scores: [any number]; a few million at most.
        count: How many are wanted; all are returned when there are no more.
    """
    blocks = len(scores) // _BLOCK
    if count < blocks:
        # `count` blocks have a maximum of at least this, so that what is below it cannot be
        # among the highest; what is left to sort is little.
        maxima = scores[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
        places = np.flatnonzero(scores >= np.partition(maxima, -count)[-count])
    else:
        places = np.arange(len(scores))
    return places[np.argsort(-scores[places], kind="stable")[:count]]
