"""Log-likelihoods of given continuations of one prompt."""

from collections.abc import Sequence as Items

from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.results import ContinuationScore, ScoreResult, TokenLogprob, Usage
from gpt2flow.server.engine.sequence import Request, Sequence
from gpt2flow.server.engine.task import Row, Task
from gpt2flow.server.sampling.logits import LogitsRows


class ScoreTask(Task):
    """Scoring of continuations, one after the other in one slot.

    The prompt is run once.
    """

    def __init__(self, request: Request, continuations: Items[Items[int]]) -> None:
        """Take at least one continuation, each of at least one token."""
        super().__init__(request)
        self._continuations = continuations
        self._scores: list[list[TokenLogprob]] = [[]]
        self._after_prompt: LogitsRows | None = None
        self._sequence = Sequence(
            [*request.prompt, *continuations[0]],
            prompt_length=len(request.prompt),
            slot=-1,
            logits_from=request.logits_from,
            grows=False,
        )

    @property
    def done(self) -> bool:
        """True if all continuations are scored."""
        return len(self._scores) == len(self._continuations) and self._remaining == 0

    def begin(self, cache: SlotCache) -> None:
        """Start with the prompt and the first continuation."""
        del cache
        self._sequence.slot = self.request.slots[0]
        self.request.sequences.append(self._sequence)

    def accept(self, rows: Items[Row], logits: LogitsRows, cache: SlotCache) -> None:
        """Score the tokens that were run, and start the next continuation."""
        for _, position, row in rows:
            if position == self._sequence.prompt_length - 1:
                self._after_prompt = LogitsRows(logits.values[row : row + 1].copy())
            self._score(logits, row)
        while self._remaining == 0 and len(self._scores) < len(self._continuations):
            self._next(cache)
        if self._remaining == 0:
            self.request.sequences.clear()

    def result(self, finished: float) -> ScoreResult:
        """Return all scores."""
        return ScoreResult(
            scores=tuple(ContinuationScore(tuple(tokens)) for tokens in self._scores),
            usage=Usage(
                prompt_tokens=len(self.request.prompt), cached_tokens=self.request.cached_tokens
            ),
            timing=self.timing(finished),
        )

    @property
    def _remaining(self) -> int:
        """Number of tokens of the present continuation without a score."""
        return self._sequence.new_tokens - len(self._scores[-1])

    def _score(self, logits: LogitsRows, row: int) -> None:
        token_id = self._sequence.tokens[self._sequence.prompt_length + len(self._scores[-1])]
        self._scores[-1].append(TokenLogprob(token_id, logits.logprob(row, token_id)))

    def _next(self, cache: SlotCache) -> None:
        """Start the next continuation, whose first token needs no run."""
        assert self._after_prompt is not None
        sequence = self._sequence
        sequence.tokens[sequence.prompt_length :] = self._continuations[len(self._scores)]
        sequence.logits_from = sequence.prompt_length
        cache.truncate(sequence.slot, sequence.prompt_length)
        self._scores.append([])
        self._score(self._after_prompt, 0)
