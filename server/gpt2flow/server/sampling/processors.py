"""Logits processors: pure NumPy functions with transformers' semantics.

Scores are float32 [vocabulary]; minus infinity marks a forbidden token. Functions return new
arrays, and do not change their arguments.
"""

from collections.abc import Callable, Sequence

import numpy as np

from gpt2flow.server.params import BeamSearchParams, SamplingParams
from gpt2flow.server.sampling.filters import Floats, Ids

Processor = Callable[[Floats, Ids, int], Floats]
"""Function of scores [vocabulary], the token ids so far, and the length of the prompt in them."""


def bias_tokens(scores: Floats, ids: Ids, biases: Floats) -> Floats:
    """Add a value to the scores of single tokens."""
    scores = scores.copy()
    np.add.at(scores, ids, biases)
    return scores


def penalize_repetition(scores: Floats, tokens: Ids, penalty: float) -> Floats:
    """Divide positive and multiply negative scores of all tokens so far.

    Args:
        scores: Scores, [vocabulary].
        tokens: Token ids of the prompt and of the output.
        penalty: Factor; above 1 it discourages repetition.
    """
    scores = scores.copy()
    seen = scores[tokens]
    # A token that occurs twice is assigned the same value twice.
    scores[tokens] = np.where(seen < 0, seen * np.float32(penalty), seen / np.float32(penalty))
    return scores


def penalize_occurrence(scores: Floats, produced: Ids, presence: float, frequency: float) -> Floats:
    """Penalize output tokens: `presence` once, `frequency` per occurrence.

    transformers has neither; the definition is that of the OpenAI API.
    """
    counts = np.bincount(produced, minlength=len(scores))
    penalty = presence * (counts > 0) + frequency * counts
    return scores - penalty.astype(np.float32)


def forbid(scores: Floats, ids: Ids) -> Floats:
    """Set the scores of tokens to minus infinity."""
    scores = scores.copy()
    scores[ids] = -np.inf
    return scores


def repeated_ngram_ends(tokens: Ids, size: int) -> Ids:
    """Return the ids of tokens that would repeat an n-gram of `tokens`."""
    if len(tokens) < size:
        return np.empty(0, np.intp)
    if size == 1:
        return tokens
    windows = np.lib.stride_tricks.sliding_window_view(tokens, size)
    last = tokens[len(tokens) - size + 1 :]
    ends: Ids = windows[(windows[:, :-1] == last).all(axis=1), -1]
    return ends


def bad_word_ends(tokens: Ids, bad_words: Sequence[Ids]) -> Ids:
    """Return the ids of tokens that would complete a forbidden sequence."""
    ends = [
        word[-1]
        for word in bad_words
        if len(word) == 1
        or (
            len(word) <= len(tokens) + 1
            and (tokens[len(tokens) + 1 - len(word) :] == word[:-1]).all()
        )
    ]
    return np.array(ends, np.intp)


def make_processors(
    params: SamplingParams | BeamSearchParams,
    *,
    bad_words: Sequence[Sequence[int]] = (),
    ending_ids: Sequence[int] = (),
    min_new_tokens: int = 0,
) -> list[Processor]:
    """Return the processors that a request needs, in the order of transformers.

    Args:
        params: Options; those at their defaults add no processor.
        bad_words: Forbidden token sequences.
        ending_ids: Ids of tokens that end a sequence.
        min_new_tokens: Number of new tokens before which ending tokens are forbidden.
    """
    processors: list[Processor] = []
    if params.logit_bias:
        processors.append(_biasing(params.logit_bias))
    if params.repetition_penalty != 1:
        processors.append(_penalizing_repetition(params.repetition_penalty))
    if isinstance(params, SamplingParams) and (params.presence_penalty or params.frequency_penalty):
        processors.append(_penalizing_occurrence(params.presence_penalty, params.frequency_penalty))
    if params.no_repeat_ngram_size:
        processors.append(_forbidding_repeated_ngrams(params.no_repeat_ngram_size))
    if bad_words:
        processors.append(_forbidding_words(bad_words))
    if min_new_tokens and ending_ids:
        processors.append(_forbidding_early_ends(ending_ids, min_new_tokens))
    return processors


def _biasing(biases: Sequence[tuple[int, float]]) -> Processor:
    ids = np.array([token_id for token_id, _ in biases], np.intp)
    values = np.array([bias for _, bias in biases], np.float32)

    def bias(scores: Floats, _tokens: Ids, _prompt_length: int) -> Floats:
        return bias_tokens(scores, ids, values)

    return bias


def _penalizing_repetition(penalty: float) -> Processor:
    def penalize(scores: Floats, tokens: Ids, _prompt_length: int) -> Floats:
        return penalize_repetition(scores, tokens, penalty)

    return penalize


def _penalizing_occurrence(presence: float, frequency: float) -> Processor:
    def penalize(scores: Floats, tokens: Ids, prompt_length: int) -> Floats:
        return penalize_occurrence(scores, tokens[prompt_length:], presence, frequency)

    return penalize


def _forbidding_repeated_ngrams(size: int) -> Processor:
    def forbid_ends(scores: Floats, tokens: Ids, _prompt_length: int) -> Floats:
        return forbid(scores, repeated_ngram_ends(tokens, size))

    return forbid_ends


def _forbidding_words(words: Sequence[Sequence[int]]) -> Processor:
    arrays = [np.array(word, np.intp) for word in words]

    def forbid_ends(scores: Floats, tokens: Ids, _prompt_length: int) -> Floats:
        return forbid(scores, bad_word_ends(tokens, arrays))

    return forbid_ends


def _forbidding_early_ends(ending_ids: Sequence[int], min_new_tokens: int) -> Processor:
    ids = np.array(ending_ids, np.intp)

    def forbid_ends(scores: Floats, tokens: Ids, prompt_length: int) -> Floats:
        return forbid(scores, ids) if len(tokens) - prompt_length < min_new_tokens else scores

    return forbid_ends


def process(
    processors: Sequence[Processor], scores: Floats, tokens: Sequence[int], prompt_length: int
) -> Floats:
    """Apply processors in order; without any, return `scores` itself."""
    if processors:
        history = np.array(tokens, np.intp)
        for processor in processors:
            scores = processor(scores, history, prompt_length)
    return scores
