"""Hypotheses of one prompt, grown together by beam search."""

from collections.abc import Sequence as Items

import numpy as np

from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.results import GenerationResult, ScoreResult, Usage
from gpt2flow.server.engine.sequence import FinishReason, Request, Sequence
from gpt2flow.server.engine.task import Row, Task
from gpt2flow.server.errors import ServerError
from gpt2flow.server.generation.beam_search import BeamSearch, Continuation, Hypothesis
from gpt2flow.server.generation.logprobs import PromptLogprobs
from gpt2flow.server.generation.output import Output
from gpt2flow.server.generation.spec import Generation
from gpt2flow.server.params import BeamSearchParams
from gpt2flow.server.sampling.filters import top_places
from gpt2flow.server.sampling.logits import LogitsRows
from gpt2flow.server.sampling.processors import process


class BeamTask(Task):
    """Beam search over one prompt, with a slot for each hypothesis."""

    def __init__(self, request: Request, generation: Generation, params: BeamSearchParams) -> None:
        super().__init__(request)
        self._generation = generation
        self._params = params
        self._prompt_logprobs = PromptLogprobs(generation)
        output = Output(generation, scored=True)
        sequence = Sequence(
            output.tokens,
            prompt_length=len(generation.prompt),
            slot=-1,
            logits_from=request.logits_from,
        )
        self._search = BeamSearch(
            params,
            generation.max_new_tokens,
            len(generation.endings),
            Hypothesis(sequence, output, np.float32(0)),
        )

    @property
    def done(self) -> bool:
        """True if the search is over."""
        return self._search.done

    def begin(self, cache: SlotCache) -> None:
        """Start with the empty hypothesis."""
        del cache
        [first] = self._search.running
        first.sequence.slot = self.request.slots[0]
        self.request.sequences.append(first.sequence)

    def accept(self, rows: Items[Row], logits: LogitsRows, cache: SlotCache) -> None:
        """Grow all hypotheses by one token, once the prompt has been run."""
        row_of = {}
        for sequence, position, row in rows:
            if position + 1 < sequence.prompt_length:
                self._prompt_logprobs.add(position + 1, logits, row)
            else:
                row_of[sequence] = row
        if not row_of:
            return
        search, running = self._search, []
        if continuations := self._continuations(row_of, logits):
            running = search.expand(continuations)
        elif self._generation.constraint is not None:
            search.stop(FinishReason.CONSTRAINT)  # A model without an end-of-text token.
        else:  # The processors forbid every token.
            search.stop(FinishReason.EOS)
        search.place(running, cache, self.request.slots)
        self.request.sequences[:] = [each.sequence for each in search.running]

    def expire(self, finished: float) -> GenerationResult | ScoreResult | ServerError:
        """Return the best hypotheses so far, if partial results are allowed."""
        if not self._generation.params.stopping.return_partial_on_time_limit:
            return super().expire(finished)
        self._search.stop(FinishReason.TIME_LIMIT)
        return self.result(finished)

    def result(self, finished: float) -> GenerationResult:
        """Return the best hypotheses."""
        ended = self._search.ended[: self._params.num_return_sequences]
        candidates = tuple(each.output.result(beam_score=each.score) for each in ended)
        return GenerationResult(
            candidates=candidates,
            prompt_logprobs=tuple(self._prompt_logprobs.positions),
            usage=Usage(
                prompt_tokens=len(self._generation.prompt),
                truncated_tokens=self._generation.truncated_tokens,
                cached_tokens=self.request.cached_tokens,
                completion_tokens=sum(len(each.token_ids) for each in candidates),
            ),
            timing=self.timing(finished),
            seed=self._generation.seed,
        )

    def _continuations(self, row_of: dict[Sequence, int], logits: LogitsRows) -> list[Continuation]:
        """Return the best continuations of all running hypotheses, best first.

        They end with the last one that `expand` can choose: making one copies its parent.
        """
        width, open_beams = self._search.width, self._params.num_beams
        best = [
            (score + each.score, each, token_id)
            for each in self._search.running
            for score, token_id in self._best(each, logits, row_of[each.sequence], width)
        ]
        best.sort(key=lambda entry: -entry[0])
        continuations: list[Continuation] = []
        for score, parent, token_id in best[:width]:
            each = _continuation(parent, token_id, score, logits, row_of[parent.sequence])
            continuations.append(each)
            open_beams -= each.output.finish_reason is None
            if not open_beams:
                break
        return continuations

    def _best(
        self, hypothesis: Hypothesis, logits: LogitsRows, row: int, count: int
    ) -> list[tuple[np.float32, int]]:
        """Return processed log-probabilities of the likeliest next tokens, best first."""
        values, logsumexp = logits.row(row), logits.logsumexp(row)
        allowed = hypothesis.output.allowed()
        if allowed is not None and not len(allowed):
            return []
        scores = values
        if processors := self._generation.processors:
            tokens, prompt_length = hypothesis.output.tokens, len(self._generation.prompt)
            scores = process(processors, values - logsumexp, tokens, prompt_length)
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
    parent: Hypothesis, token_id: int, score: np.float32, logits: LogitsRows, row: int
) -> Continuation:
    """Return a hypothesis with one more token."""
    output = parent.output.fork()
    output.append(token_id)
    output.score(token_id, logits, row)
    return Continuation(parent, output, score)
