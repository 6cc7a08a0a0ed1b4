"""Sampler of tokens with the options of one request."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np

from gpt2flow.server.params import SamplingParams
from gpt2flow.server.sampling import filters
from gpt2flow.server.sampling.filters import GROUP, Floats, Ids, exponentials
from gpt2flow.server.sampling.processors import Processor, process

_Filter = Callable[[Floats], Ids]

# Lower temperatures are greedy: only the likeliest token has a chance, and logits divided by them
# may exceed float32.
_MIN_TEMPERATURE: Final = 1e-30


class Sampler:
    """Greedy decoding or random sampling with the options of one request."""

    def __init__(self, params: SamplingParams, processors: Sequence[Processor]) -> None:
        self._greedy = params.temperature < _MIN_TEMPERATURE
        self._temperature = np.float32(params.temperature)
        self._processors = processors
        self._top_k = params.top_k
        self._filters = _make_filters(params)

    @property
    def takes_argmax(self) -> bool:
        """True if every choice is the plain argmax of the logits."""
        return self._greedy and not self._processors

    def choose(
        self,
        values: Floats,
        tokens: Sequence[int],
        prompt_length: int,
        rng: np.random.Generator,
        allowed: Ids | None = None,
    ) -> int | None:
        """Choose the next token.

        Args:
            values: Logits, [vocabulary]; they are not changed.
            tokens: Token ids of the prompt and of the output.
            prompt_length: Number of tokens of the prompt.
            rng: Source of one random number, unless decoding is greedy.
            allowed: Token ids that a constraint admits; None is all.

        Returns:
            The token id; None if the processors forbid every token. If they forbid all that a
            constraint admits, the constraint wins.
        """
        scores = process(self._processors, values, tokens, prompt_length)
        if allowed is not None:
            scores = scores[allowed]
        if self._processors and scores.max() == -np.inf:
            if allowed is None:
                return None
            scores = values[allowed]
        index = int(scores.argmax()) if self._greedy else self._draw(scores, rng)
        return index if allowed is None else int(allowed[index])

    def _draw(self, scores: Floats, rng: np.random.Generator) -> int:
        """Draw an index of `scores` after temperature and filters."""
        indices = None
        if self._top_k:  # Temperature keeps the order, so divide only the scores that are kept.
            indices = filters.top_k(scores, self._top_k)
            scores = scores[indices]
        if self._temperature != 1:
            scores = scores / self._temperature
        for keep in self._filters:
            kept = keep(scores)
            scores = scores[kept]
            indices = kept if indices is None else indices[kept]
        index = draw(scores, rng.random())
        return index if indices is None else int(indices[index])


def make_rng(seed: int, index: int) -> np.random.Generator:
    """Return the random generator of a candidate, from seed and index alone."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))


def _make_filters(params: SamplingParams) -> list[_Filter]:
    """Return the filters after temperature and top-k, in transformers' order."""
    chosen: list[_Filter] = []
    if params.top_p < 1:
        chosen.append(partial(filters.top_p, p=params.top_p))
    if params.min_p:
        chosen.append(partial(filters.min_p, p=params.min_p))
    if params.typical_p < 1:
        chosen.append(partial(filters.typical_p, mass=params.typical_p))
    return chosen


def draw(scores: Floats, number: float) -> int:
    """Return the index drawn from the softmax of `scores` by inverse CDF.

    Args:
        scores: Scores, at least one of which is finite.
        number: Random number in [0, 1).
    """
    weights = exponentials(scores, scores.max())
    groups = len(weights) // GROUP
    if groups <= GROUP:
        return _locate(weights, number)[0]
    # First draw a group, then an index within it. Group g has every `groups`-th score from g on;
    # the scores left over are the last group.
    whole = weights[: groups * GROUP].reshape(GROUP, groups)
    rest = weights[groups * GROUP :]
    group, number = _locate(np.append(whole.sum(axis=0), rest.sum()), number)
    if group == groups:
        return groups * GROUP + _locate(rest, number)[0]
    return _locate(whole[:, group], number)[0] * groups + group


def _locate(weights: Floats, number: float) -> tuple[int, float]:
    """Find where the CDF passes a number in [0, 1).

    Returns:
        The index, and the relative position of the number within its interval, in [0, 1).
    """
    cumulative = np.cumsum(weights, dtype=np.float64)
    target = number * cumulative[-1]
    index = int(cumulative.searchsorted(target, side="right"))
    if index == len(cumulative):  # Rounding has moved the target to the very end.
        index = int(cumulative.searchsorted(cumulative[-1]))
    before = cumulative[index - 1] if index else 0.0
    return index, float((target - before) / (cumulative[index] - before))
