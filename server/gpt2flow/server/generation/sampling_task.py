"""Candidates of one prompt, each grown token by token."""

from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

import numpy as np

from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.results import Delta, GenerationResult, ScoreResult, Usage
from gpt2flow.server.engine.sequence import FinishReason, Request, Sequence
from gpt2flow.server.engine.task import Row, Task
from gpt2flow.server.errors import ServerError
from gpt2flow.server.generation.logprobs import PromptLogprobs
from gpt2flow.server.generation.output import Output
from gpt2flow.server.generation.prompt_lookup import PromptLookup
from gpt2flow.server.generation.spec import Generation
from gpt2flow.server.params import SamplingParams
from gpt2flow.server.sampling.filters import Ids
from gpt2flow.server.sampling.logits import LogitsRows
from gpt2flow.server.sampling.sampler import Sampler, make_rng

# A grammar that allows fewer tokens describes no text that could repeat an earlier passage.
_FREE_CHOICE: Final = 256


@dataclass(slots=True, eq=False)
class _Candidate:
    """One candidate: its output, and what the engine runs of it.

    Attributes:
        output: Its tokens and text; `sequence` shares the list of tokens.
        sequence: Its row of work.
        rng: Source of its random numbers.
        allowed: Token ids that the constraint admits next; None is all.
        lookup: Source of its drafts; None until the first.
    """

    output: Output
    sequence: Sequence
    rng: np.random.Generator
    allowed: Ids | None = None
    lookup: PromptLookup | None = field(default=None)

    def end(self, reason: FinishReason) -> None:
        """End it where it is."""
        self.output.finish(reason)
        self.sequence.grows = False


class SamplingTask(Task):
    """Greedy decoding, or random sampling of one candidate or several.

    The prompt is run once, by the first candidate; the others start with a copy of its cache.
    """

    def __init__(self, request: Request, generation: Generation, params: SamplingParams) -> None:
        super().__init__(request)
        self._generation = generation
        self._count = params.n
        self._sampler = Sampler(params, generation.processors)
        self._prompt_logprobs = PromptLogprobs(generation)
        self._candidates = [self._first()]
        self._running: dict[Sequence, _Candidate] = {}

    @property
    def done(self) -> bool:
        """True if all candidates are complete."""
        return len(self._candidates) == self._count and all(
            each.output.complete for each in self._candidates
        )

    def begin(self, cache: SlotCache) -> None:
        """Start the first candidate."""
        [first] = self._candidates
        first.sequence.slot = self.request.slots[0]
        self._run(first)
        self._append_forced(first)
        if first.output.complete:  # The constraint left no choice at all.
            self._fork(first, cache)
            self._release_complete(cache)

    def draft(self, cache: SlotCache, break_even: float) -> None:
        """Draft the next tokens of each candidate that lacks one."""
        # The others start with a copy of the first one's cache, which must hold no drafts.
        if not self._generation.draft_tokens or len(self._candidates) < self._count:
            return
        for sequence, candidate in self._running.items():
            if sequence.to_run - cache.lengths[sequence.slot] == 1:
                self._draft(candidate, break_even)

    def accept(self, rows: Items[Row], logits: LogitsRows, cache: SlotCache) -> None:
        """Take the logits of each sequence in turn."""
        for sequence, group in groupby(rows, key=lambda row: row.sequence):
            self._accept(self._running[sequence], list(group), logits, cache)
        first = self._candidates[0]
        if first.output.complete and len(self._candidates) < self._count:
            self._fork(first, cache)
        self._release_complete(cache)

    def deltas(self) -> list[Delta]:
        """Return the news of all candidates, for requests that stream."""
        if not self._generation.stream:
            return []
        outputs = [each.output for each in self._candidates]
        return [delta for index, each in enumerate(outputs) if (delta := each.delta(index))]

    def expire(self, finished: float) -> GenerationResult | ScoreResult | ServerError:
        """Return the candidates so far, if the client accepts a partial result."""
        if not self._generation.params.stopping.return_partial_on_time_limit:
            return super().expire(finished)
        first = self._candidates[0]
        missing = range(len(self._candidates), self._count)
        self._candidates += [self._twin(first, index, slot=-1) for index in missing]
        for candidate in self._candidates:
            candidate.output.interrupt(FinishReason.TIME_LIMIT)
        return self.result(finished)

    def result(self, finished: float) -> GenerationResult:
        """Return all candidates."""
        candidates = tuple(each.output.result() for each in self._candidates)
        lookups = [each.lookup for each in self._candidates if each.lookup]
        return GenerationResult(
            candidates=candidates,
            prompt_logprobs=tuple(self._prompt_logprobs.positions),
            usage=Usage(
                prompt_tokens=len(self._generation.prompt),
                truncated_tokens=self._generation.truncated_tokens,
                cached_tokens=self.request.cached_tokens,
                completion_tokens=sum(len(each.token_ids) for each in candidates),
                forced_tokens=sum(each.output.forced for each in self._candidates),
                drafted_tokens=sum(each.drafted for each in lookups),
                accepted_tokens=sum(each.accepted for each in lookups),
            ),
            timing=self.timing(finished),
            seed=self._generation.seed,
        )

    def _first(self) -> _Candidate:
        """Return a candidate of the prompt alone, without a slot."""
        generation = self._generation
        output = Output(generation, scored=generation.scored)
        sequence = Sequence(
            output.tokens,
            prompt_length=len(generation.prompt),
            slot=-1,
            logits_from=self.request.logits_from,
        )
        return _Candidate(output, sequence, make_rng(generation.seed, 0))

    def _twin(self, first: _Candidate, index: int, slot: int) -> _Candidate:
        """Return a candidate with the same tokens and its own generator."""
        output, source = first.output.fork(), first.sequence
        sequence = Sequence(
            output.tokens,
            prompt_length=source.prompt_length,
            slot=slot,
            logits_from=source.logits_from,
            logit_ids=source.logit_ids,
            grows=source.grows,
        )
        return _Candidate(output, sequence, make_rng(self._generation.seed, index), first.allowed)

    def _run(self, candidate: _Candidate) -> None:
        self._running[candidate.sequence] = candidate
        self.request.sequences.append(candidate.sequence)

    def _fork(self, first: _Candidate, cache: SlotCache) -> None:
        """Start the other candidates where the first one stands."""
        for index in range(1, self._count):
            slot = self.request.slots[index]
            cache.fork(first.sequence.slot, slot)
            twin = self._twin(first, index, slot)
            self._candidates.append(twin)
            self._run(twin)

    def _draft(self, candidate: _Candidate, break_even: float) -> None:
        """Draft the next tokens, for one run."""
        generation, output, sequence = self._generation, candidate.output, candidate.sequence
        if not sequence.grows:
            return
        if candidate.allowed is not None and len(candidate.allowed) < _FREE_CHOICE:
            return
        if candidate.lookup is None:
            candidate.lookup = PromptLookup(output.tokens, generation.draft_tokens)
        candidate.lookup.extend(output.tokens[len(candidate.lookup) :])
        # The run itself always yields one token.
        limit = generation.max_new_tokens - output.new_tokens - 1
        sequence.drafts = output.valid_start(candidate.lookup.propose(limit, break_even))

    def _accept(
        self, candidate: _Candidate, rows: Items[Row], logits: LogitsRows, cache: SlotCache
    ) -> None:
        """Take logits up to the first rejected draft."""
        sequence = candidate.sequence
        drafts, known = sequence.drafts, len(sequence.tokens)
        accepted = 0
        for _, position, row in rows:
            if position >= known:
                if sequence.tokens[position : position + 1] != [drafts[position - known]]:
                    break
                accepted += 1
            self._take(candidate, position + 1, logits, row, cache)
        drafted = rows[-1].position + 1 - known
        if drafted > 0 and candidate.lookup is not None:
            candidate.lookup.record(drafted, accepted)
            cache.truncate(sequence.slot, known + accepted)
        sequence.drafts = []

    def _take(
        self,
        candidate: _Candidate,
        following: int,
        logits: LogitsRows,
        row: int,
        cache: SlotCache,
    ) -> None:
        """Use the logits that predict position `following`.

        Its token is part of the prompt, known, or chosen now.
        """
        sequence = candidate.sequence
        if following < sequence.prompt_length:
            self._prompt_logprobs.add(following, logits, row)
        elif following < len(sequence.tokens):
            candidate.output.score(sequence.tokens[following], logits, row)
        elif len(self._candidates) < self._count:
            self._fork(candidate, cache)
            for each in self._candidates:
                self._grow(each, logits, row)
        elif sequence.grows:
            self._grow(candidate, logits, row)

    def _grow(self, candidate: _Candidate, logits: LogitsRows, row: int) -> None:
        """Append a token, and those that the constraint forces after it."""
        output = candidate.output
        if self._sampler.takes_argmax and not output.constrained:
            token_id: int | None = logits.argmax[row]
        else:
            token_id = self._sampler.choose(
                logits.row(row),
                output.tokens,
                len(self._generation.prompt),
                candidate.rng,
                candidate.allowed,
            )
        if token_id is None:
            candidate.end(FinishReason.EOS)
            return
        output.append(token_id)
        output.score(token_id, logits, row)
        self._append_forced(candidate)

    def _append_forced(self, candidate: _Candidate) -> None:
        """Append forced tokens, and prepare the choice of the next one."""
        output, sequence = candidate.output, candidate.sequence
        output.append_forced()
        if output.finish_reason is not None:
            sequence.grows = False
            return
        candidate.allowed = output.allowed()
        if candidate.allowed is not None and not len(candidate.allowed):
            candidate.end(FinishReason.CONSTRAINT)  # A model without an end-of-text token.
            return
        if not self._generation.scored:
            sequence.logits_from = len(sequence.tokens) - 1
            # Processors need the logits of all tokens.
            sequence.logit_ids = None if self._generation.processors else candidate.allowed

    def _release_complete(self, cache: SlotCache) -> None:
        """Release the slots of candidates that need no more runs."""
        for candidate in [each for each in self._running.values() if each.output.complete]:
            sequence = candidate.sequence
            del self._running[sequence]
            self.request.sequences.remove(sequence)
            self.request.slots.remove(sequence.slot)
            cache.free(sequence.slot)
