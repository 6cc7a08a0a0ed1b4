"""Log-probabilities of given tokens: continuations of a prompt, or the prompt alone."""

from collections.abc import Sequence as Items

from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.results import (
    ContinuationScore,
    Delta,
    GenerationResult,
    ScoreResult,
    TokenLogprob,
    Usage,
)
from gpt2flow.server.engine.sequence import FinishReason, Request, Sequence
from gpt2flow.server.engine.task import Row, Task
from gpt2flow.server.errors import ServerError
from gpt2flow.server.generation.logprobs import PromptLogprobs
from gpt2flow.server.generation.output import Output
from gpt2flow.server.generation.spec import Generation
from gpt2flow.server.params import BeamSearchParams
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
                self._after_prompt = logits.copy_row(row)
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


class PromptTask(Task):
    """Scoring of a prompt after which nothing is generated."""

    def __init__(self, request: Request, generation: Generation) -> None:
        super().__init__(request)
        self._generation = generation
        self._logprobs = PromptLogprobs(generation)
        decoding = generation.params.decoding
        # The hypotheses of beam search differ, and there is only one of no tokens.
        count = 1 if isinstance(decoding, BeamSearchParams) else decoding.n
        self._streams = generation.stream and not isinstance(decoding, BeamSearchParams)
        self._outputs = [Output(generation, scored=generation.scored) for _ in range(count)]
        self._sequence = Sequence(
            list(request.prompt),
            prompt_length=len(request.prompt),
            slot=-1,
            logits_from=request.logits_from,
            grows=False,
        )

    @property
    def done(self) -> bool:
        """True if each token of the prompt has its log-probability."""
        return len(self._logprobs.positions) == len(self.request.prompt)

    def begin(self, cache: SlotCache) -> None:
        """Start with the prompt."""
        del cache
        self._sequence.slot = self.request.slots[0]
        self.request.sequences.append(self._sequence)

    def accept(self, rows: Items[Row], logits: LogitsRows, cache: SlotCache) -> None:
        """Score the tokens that were run."""
        del cache
        for _, position, row in rows:
            self._logprobs.add(position + 1, logits, row)

    def deltas(self) -> list[Delta]:
        """Return the echo of the prompt, for requests that stream."""
        if not self._streams:
            return []
        return [delta for i, each in enumerate(self._outputs) if (delta := each.delta(i))]

    def expire(self, finished: float) -> GenerationResult | ScoreResult | ServerError:
        """Return the scores so far, if the client accepts a partial result."""
        if not self._generation.params.stopping.return_partial_on_time_limit:
            return super().expire(finished)
        for output in self._outputs:
            output.finish(FinishReason.TIME_LIMIT)
        return self.result(finished)

    def result(self, finished: float) -> GenerationResult:
        """Return the scores, with candidates of no tokens."""
        for output in self._outputs:
            if output.finish_reason is None:
                output.finish(FinishReason.LENGTH)
        return GenerationResult(
            candidates=tuple(output.result() for output in self._outputs),
            prompt_logprobs=tuple(self._logprobs.positions),
            usage=Usage(
                prompt_tokens=len(self.request.prompt),
                truncated_tokens=self._generation.truncated_tokens,
            ),
            timing=self.timing(finished),
            seed=self._generation.seed,
        )
