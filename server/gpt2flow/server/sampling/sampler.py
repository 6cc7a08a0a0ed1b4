"""From the logits of a position to its token, as one request asks."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np

from gpt2flow.server.params import SamplingParams
from gpt2flow.server.sampling import filters
from gpt2flow.server.sampling.filters import GROUP, Floats, Ids, powers
from gpt2flow.server.sampling.processors import Processor, process

_Filter = Callable[[Floats], Ids]

# Logits that are divided by less may exceed float32, and only the likeliest has a chance anyway.
_COLDEST: Final = 1e-30


class Sampler:
    """Greedy decoding or random sampling with the options of one request."""

    def __init__(self, params: SamplingParams, processors: Sequence[Processor]) -> None:
        self._greedy = params.temperature < _COLDEST
        self._temperature = np.float32(params.temperature)
        self._processors = processors
        self._top_k = params.top_k
        self._filters = _make_filters(params)

    @property
    def takes_argmax(self) -> bool:
        """Whether the token is always the likeliest, so that nothing needs to be computed."""
        return self._greedy and not self._processors

    def choose(
        self,
        values: Floats,
        tokens: Sequence[int],
        prompt_length: int,
        rng: np.random.Generator,
        allowed: Ids | None = None,
    ) -> int | None:
        """Return the token that follows.

        Args:
            values: Logits [vocabulary]; left alone.
            tokens: The prompt and what was produced.
            prompt_length: How many of them are the prompt.
            rng: Gives one random number, unless decoding is greedy.
            allowed: The ids that a constraint admits; None is all.

        Returns:
            The token's id; None when the processors forbid every token. Where
            they forbid all that a constraint admits, the constraint wins.
        """
        scores = process(self._processors, values, tokens, prompt_length)
        if allowed is not None:
            scores = scores[allowed]
        if self._processors and scores.max() == -np.inf:
            if allowed is None:
                return None
            scores = values[allowed]
        place = int(scores.argmax()) if self._greedy else self._draw(scores, rng)
        return place if allowed is None else int(allowed[place])

    def _draw(self, scores: Floats, rng: np.random.Generator) -> int:
        """Return a place in `scores`, drawn from what temperature and filters leave."""
        places = None
        if self._top_k:  # Temperature leaves the order as it is: divide only those that stay.
            places = filters.top_k(scores, self._top_k)
            scores = scores[places]
        if self._temperature != 1:
            scores = scores / self._temperature
        for keep in self._filters:
            kept = keep(scores)
            scores = scores[kept]
            places = kept if places is None else places[kept]
        place = draw(scores, rng.random())
        return place if places is None else int(places[place])


def make_rng(seed: int, index: int) -> np.random.Generator:
    """Return the random numbers of one candidate: they depend on nothing but seed and index."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))


def _make_filters(params: SamplingParams) -> list[_Filter]:
    """Return what narrows the choice after temperature and top-k, in transformers' order."""
    chosen: list[_Filter] = []
    if params.top_p < 1:
        chosen.append(partial(filters.top_p, p=params.top_p))
    if params.min_p:
        chosen.append(partial(filters.min_p, p=params.min_p))
    if params.typical_p < 1:
        chosen.append(partial(filters.typical_p, mass=params.typical_p))
    return chosen


def draw(scores: Floats, number: float) -> int:
    """Return the place where a random number of [0, 1) falls when chances are laid in a row."""
    chances = powers(scores, scores.max())
    groups = len(chances) // GROUP
    if groups <= GROUP:
        return _locate(chances, number)[0]
    # First which group, then which of it. Group g has every `groups`-th score from g on; those
    # that are left over are a group too.
    whole = chances[: groups * GROUP].reshape(GROUP, groups)
    rest = chances[groups * GROUP :]
    group, number = _locate(np.append(whole.sum(axis=0), rest.sum()), number)
    if group == groups:
        return groups * GROUP + _locate(rest, number)[0]
    return _locate(whole[:, group], number)[0] * groups + group


def _locate(chances: Floats, number: float) -> tuple[int, float]:
    """Return where a number of [0, 1) falls, and how far within that place it lies, of [0, 1)."""
    cumulative = np.cumsum(chances, dtype=np.float64)
    target = number * cumulative[-1]
    place = int(cumulative.searchsorted(target, side="right"))
    if place == len(cumulative):  # Rounding took the number to the very end.
        place = int(cumulative.searchsorted(cumulative[-1]))
    before = cumulative[place - 1] if place else 0.0
    return place, float((target - before) / (cumulative[place] - before))
