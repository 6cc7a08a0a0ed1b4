"""From the logits of a position to its token, as one request asks."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np

from gpt2flow.server import logits, ranking
from gpt2flow.server.params import BeamSearchParams, SamplingParams
from gpt2flow.server.ranking import Floats, Ids

Processor = Callable[[Floats, Ids, int], Floats]
"""Takes scores [vocabulary], all tokens so far, and how many of them are the prompt."""

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
        """Returns the token that follows.

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
        """Returns a place in `scores`, drawn from what temperature and filters leave."""
        places = None
        if self._top_k:  # Temperature leaves the order as it is: divide only those that stay.
            places = ranking.top_k(scores, self._top_k)
            scores = scores[places]
        if self._temperature != 1:
            scores = scores / self._temperature
        for keep in self._filters:
            kept = keep(scores)
            scores = scores[kept]
            places = kept if places is None else places[kept]
        place = ranking.draw(scores, rng.random())
        return place if places is None else int(places[place])


def make_rng(seed: int, index: int) -> np.random.Generator:
    """Returns the random numbers of one candidate: they depend on nothing but seed and index."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))


def make_processors(
    params: SamplingParams | BeamSearchParams,
    *,
    bad_words: Sequence[Sequence[int]] = (),
    ending_ids: Sequence[int] = (),
    min_new_tokens: int = 0,
) -> list[Processor]:
    """Returns what changes the scores before temperature, in the order of transformers.

    Args:
        params: The options; those at their defaults cost nothing.
        bad_words: Token sequences that are never produced.
        ending_ids: Tokens that end a sequence.
        min_new_tokens: They are held back until so many tokens exist.
    """
    processors: list[Processor] = []
    if isinstance(params, SamplingParams) and params.logit_bias:
        ids = np.array([token_id for token_id, _ in params.logit_bias], np.intp)
        biases = np.array([bias for _, bias in params.logit_bias], np.float32)
        processors.append(lambda scores, _tokens, _n: logits.bias_tokens(scores, ids, biases))
    if (penalty := params.repetition_penalty) != 1:
        processors.append(
            lambda scores, tokens, _n: logits.penalise_repetition(scores, tokens, penalty)
        )
    if isinstance(params, SamplingParams) and (params.presence_penalty or params.frequency_penalty):
        presence, frequency = params.presence_penalty, params.frequency_penalty
        processors.append(
            lambda scores, tokens, n: logits.penalise_occurrence(
                scores, tokens[n:], presence, frequency
            )
        )
    if size := params.no_repeat_ngram_size:
        processors.append(
            lambda scores, tokens, _n: logits.forbid(
                scores, logits.repeated_ngram_ends(tokens, size)
            )
        )
    if bad_words:
        words = [np.array(word, np.intp) for word in bad_words]
        processors.append(
            lambda scores, tokens, _n: logits.forbid(scores, logits.bad_word_ends(tokens, words))
        )
    if min_new_tokens and ending_ids:
        ends = np.array(ending_ids, np.intp)
        processors.append(
            lambda scores, tokens, n: (
                logits.forbid(scores, ends) if len(tokens) - n < min_new_tokens else scores
            )
        )
    return processors


def process(
    processors: Sequence[Processor], scores: Floats, tokens: Sequence[int], prompt_length: int
) -> Floats:
    """Applies processors in order; returns `scores` itself when there are none."""
    if processors:
        history = np.array(tokens, np.intp)
        for processor in processors:
            scores = processor(scores, history, prompt_length)
    return scores


def _make_filters(params: SamplingParams) -> list[_Filter]:
    """Returns what narrows the choice after temperature and top-k, in transformers' order."""
    filters: list[_Filter] = []
    if params.top_p < 1:
        filters.append(partial(ranking.top_p, p=params.top_p))
    if params.min_p:
        filters.append(partial(ranking.min_p, p=params.min_p))
    if params.typical_p < 1:
        filters.append(partial(ranking.typical_p, mass=params.typical_p))
    return filters
