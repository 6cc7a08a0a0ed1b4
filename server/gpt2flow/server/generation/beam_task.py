"""Hypotheses of one prompt, grown together by beam search."""

from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np

from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.results import (
    CandidateResult,
    GenerationResult,
    PositionLogprobs,
    ScoreResult,
    Usage,
)
from gpt2flow.server.engine.sequence import FinishReason, Request, Sequence
from gpt2flow.server.engine.task import Row, Task
from gpt2flow.server.errors import ServerError
from gpt2flow.server.generation.beam_search import BeamSearch, Continuation, Ended, Hypothesis
from gpt2flow.server.generation.logprobs import PromptLogprobs, position_logprobs
from gpt2flow.server.generation.spec import Generation
from gpt2flow.server.grammar.constraint import Constraint
from gpt2flow.server.params import BeamSearchParams
from gpt2flow.server.sampling.filters import top_places
from gpt2flow.server.sampling.logits import LogitsRows
from gpt2flow.server.sampling.processors import process
from gpt2flow.server.tokenizer import TextStream


@dataclass(frozen=True, slots=True)
class _State:
    """What a hypothesis carries along.

    Attributes:
        constraint: Where it stands in its grammar.
        stream: Its text, as far as stop strings are concerned.
        cumulative_logprob: Sum of the model's own log-probabilities.
        logprobs: One entry a produced token, if asked for.
    """

    constraint: Constraint | None
    stream: TextStream
    cumulative_logprob: float = 0.0
    logprobs: tuple[PositionLogprobs, ...] = ()


class BeamTask(Task):
    """Beam search over one prompt: every hypothesis has a slot."""

    def __init__(self, request: Request, generation: Generation, params: BeamSearchParams) -> None:
        super().__init__(request)
        self._generation = generation
        self._params = params
        self._prompt_logprobs = PromptLogprobs(generation)
        self._search: BeamSearch[_State] | None = None

    @property
    def done(self) -> bool:
        """Whether the search is over."""
        return self._search is not None and self._search.done

    def begin(self, cache: SlotCache) -> None:
        """Start with the empty hypothesis."""
        self._cache = cache
        self._search = self._new_search(self.request.slots[0])
        self.request.sequences.append(self._search.running[0].sequence)

    def accept(self, rows: Items[Row], logits: LogitsRows) -> None:
        """Grow all hypotheses by one token, once the prompt has been run."""
        assert self._search is not None
        row_of = {}
        for sequence, position, row in rows:
            if position + 1 < sequence.prompt_length:
                self._prompt_logprobs.add(position + 1, logits, row)
            else:
                row_of[sequence] = row
        if not row_of:
            return
        continuations = self._continuations(self._search, row_of, logits)
        if continuations:
            running = self._search.expand(continuations)
        else:  # The processors forbid every token.
            self._search.stop(FinishReason.EOS)
            running = []
        self._search.place(running, self._cache, self.request.slots)
        self.request.sequences[:] = [each.sequence for each in self._search.running]

    def expire(self, finished: float) -> GenerationResult | ScoreResult | ServerError:
        """Return the best there is, if the client wants that."""
        if not self._generation.params.stopping.return_partial_on_time_limit:
            return super().expire(finished)
        if self._search is None:
            self._search = self._new_search(slot=-1)
        self._search.stop(FinishReason.TIME_LIMIT)
        return self.result(finished)

    def result(self, finished: float) -> GenerationResult:
        """Return the best hypotheses."""
        assert self._search is not None
        ended = self._search.ended[: self._params.num_return_sequences]
        candidates = [
            CandidateResult(
                *self._text(each),
                token_ids=tuple(each.tokens),
                finish_reason=each.reason,
                cumulative_logprob=each.state.cumulative_logprob,
                beam_score=each.score,
                logprobs=each.state.logprobs,
            )
            for each in ended
        ]
        return GenerationResult(
            candidates=tuple(candidates),
            prompt_logprobs=tuple(self._prompt_logprobs.positions),
            usage=Usage(
                prompt_tokens=len(self._generation.prompt),
                cached_tokens=self.request.cached_tokens,
                completion_tokens=sum(len(each.tokens) for each in ended),
            ),
            timing=self.timing(finished),
            seed=self._generation.seed,
        )

    def _new_search(self, slot: int) -> BeamSearch[_State]:
        generation = self._generation
        sequence = Sequence(
            list(generation.prompt),
            prompt_length=len(generation.prompt),
            slot=slot,
            logits_from=self.request.logits_from,
        )
        stream = TextStream(generation.params.stopping.stop_strings)
        empty = Hypothesis(sequence, np.float32(0), _State(generation.constraint, stream))
        return BeamSearch(self._params, generation.max_new_tokens, len(generation.endings), empty)

    def _continuations(
        self, search: BeamSearch[_State], row_of: dict[Sequence, int], logits: LogitsRows
    ) -> list[Continuation[_State]]:
        """Return the best continuations of all running hypotheses, best first."""
        best = [
            (score + each.score, each, token_id)
            for each in search.running
            for score, token_id in self._best(each, logits, row_of[each.sequence], search.width)
        ]
        best.sort(key=lambda entry: -entry[0])
        return [
            self._continuation(parent, token_id, score, logits, row_of[parent.sequence])
            for score, parent, token_id in best[: search.width]
        ]

    def _best(
        self, hypothesis: Hypothesis[_State], logits: LogitsRows, row: int, count: int
    ) -> list[tuple[np.float32, int]]:
        """Return processed log-probabilities of the likeliest next tokens, best first."""
        values, logsumexp = logits.values[row], logits.logsumexp(row)
        sequence, constraint = hypothesis.sequence, hypothesis.state.constraint
        allowed = None if constraint is None else constraint.allowed()
        scores = values
        if processors := self._generation.processors:
            scores = process(
                processors, values - logsumexp, sequence.tokens, sequence.prompt_length
            )
            logsumexp = np.float32(0)
            if allowed is not None and scores[allowed].max() == -np.inf:
                scores = values - logits.logsumexp(row)  # The constraint wins over the processors.
        if allowed is not None:
            scores = scores[allowed]
        places = top_places(scores, count)
        ids = places if allowed is None else allowed[places]
        best = scores[places] - logsumexp
        return [
            (score, token_id)
            for score, token_id in zip(best, ids.tolist(), strict=True)
            if score > -np.inf
        ]

    def _continuation(
        self,
        parent: Hypothesis[_State],
        token_id: int,
        score: np.float32,
        logits: LogitsRows,
        row: int,
    ) -> Continuation[_State]:
        """Return a hypothesis with one token more, and whether it ends."""
        output, stopping = self._generation.params.output, self._generation.params.stopping
        state, length = parent.state, parent.sequence.new_tokens + 1
        reason = self._generation.endings.get(token_id)
        constraint, stream = state.constraint, state.stream
        if constraint is not None and reason is None:
            constraint = constraint.fork()
            constraint.advance(token_id)
            reason = FinishReason.CONSTRAINT if constraint.complete else None
        if stopping.stop_strings and reason is not FinishReason.EOS:
            stream = stream.fork()
            piece = self._generation.tokenizer.piece(token_id)
            stream.push(piece, check_stops=length >= stopping.min_new_tokens)
            reason = FinishReason.STOP if stream.stop_string else reason
        if reason is None and length >= self._generation.max_new_tokens:
            reason = FinishReason.LENGTH
        logprobs = state.logprobs
        if output.logprobs:
            logprobs += (position_logprobs(logits, row, token_id, output.top_logprobs),)
        cumulative = state.cumulative_logprob + logits.logprob(row, token_id)
        return Continuation(
            parent, token_id, score, _State(constraint, stream, cumulative, logprobs), reason
        )

    def _text(self, ended: Ended[_State]) -> tuple[str, str]:
        """Return the text of a hypothesis, and the stop string that ended it."""
        generation, stopping = self._generation, self._generation.params.stopping
        stream = TextStream(stopping.stop_strings)
        text = generation.echo
        for length, token_id in enumerate(ended.tokens, 1):
            if token_id not in generation.endings:
                check = length >= stopping.min_new_tokens
                text += stream.push(generation.tokenizer.piece(token_id), check_stops=check)
        return text + stream.finish(), stream.stop_string
