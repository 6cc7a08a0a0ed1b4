"""Log-probabilities of a prompt's tokens and of a growing output."""

import copy
from collections.abc import Sequence as Items
from typing import Self

from gpt2flow.server.engine.results import PositionLogprobs, TokenLogprob
from gpt2flow.server.generation.spec import Generation
from gpt2flow.server.sampling.logits import LogitsRows


class PromptLogprobs:
    """Log-probabilities of a prompt's tokens, if requested.

    Attributes:
        positions: One entry per token of the prompt; empty if not requested.
    """

    def __init__(self, generation: Generation) -> None:
        first = PositionLogprobs(TokenLogprob(generation.prompt[0], None))
        self._prompt = generation.prompt
        self._top = generation.params.output.top_logprobs
        self.positions = [first] if generation.params.output.prompt_logprobs else []

    def add(self, position: int, logits: LogitsRows, row: int) -> None:
        """Add the token at `position`, which a row of logits predicts."""
        token_id = self._prompt[position]
        self.positions.append(_position_logprobs(logits, row, token_id, self._top))


class OutputLogprobs:
    """Log-probabilities of an output's tokens, in order.

    Attributes:
        count: Number of scored tokens.
        total: Sum of their log-probabilities.
        positions: One entry per scored token; empty if the client requested none.
    """

    def __init__(self, generation: Generation) -> None:
        output = generation.params.output
        self.count = 0
        self.total = 0.0
        self.positions: list[PositionLogprobs] = []
        self._kept = output.logprobs
        self._top = output.top_logprobs

    def add(self, token_id: int, logits: LogitsRows, row: int) -> None:
        """Score the next token, which a row of logits predicts."""
        self.count += 1
        self.total += logits.logprob(row, token_id)
        if self._kept:
            self.positions.append(_position_logprobs(logits, row, token_id, self._top))

    def skip(self, tokens: Items[int]) -> None:
        """Add tokens whose logits were never computed."""
        self.count += len(tokens)
        if self._kept:
            self.positions += [PositionLogprobs(TokenLogprob(token, None)) for token in tokens]

    def fork(self) -> Self:
        """Return a copy that grows on its own."""
        twin = copy.copy(self)
        twin.positions = list(self.positions)
        return twin


def _position_logprobs(logits: LogitsRows, row: int, token_id: int, top: int) -> PositionLogprobs:
    """Return the log-probabilities of a token and of the likeliest alternatives."""
    chosen = TokenLogprob(token_id, logits.logprob(row, token_id))
    best = logits.top(row, top) if top else ()
    return PositionLogprobs(chosen, tuple(TokenLogprob(*entry) for entry in best))
