"""Candidates of one prompt, each grown token by token."""

from collections.abc import Sequence as Items
from itertools import groupby

from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.results import Delta, GenerationResult, ScoreResult, Usage
from gpt2flow.server.engine.sequence import FinishReason, Request, Sequence
from gpt2flow.server.engine.task import Row, Task
from gpt2flow.server.errors import ServerError
from gpt2flow.server.generation.logprobs import PromptLogprobs
from gpt2flow.server.generation.output import Candidate
from gpt2flow.server.generation.spec import Generation
from gpt2flow.server.params import SamplingParams
from gpt2flow.server.sampling.logits import LogitsRows
from gpt2flow.server.sampling.sampler import Sampler


class SamplingTask(Task):
    """Greedy decoding, or random sampling of one candidate or several.

    The prompt is run once, by the first candidate; the others start with a copy
    of its cache.
    """

    def __init__(self, request: Request, generation: Generation, params: SamplingParams) -> None:
        super().__init__(request)
        self._generation = generation
        self._count = params.n
        self._sampler = Sampler(params, generation.processors)
        self._prompt_logprobs = PromptLogprobs(generation)
        self._candidates: list[Candidate] = []
        self._running: dict[Sequence, Candidate] = {}

    @property
    def done(self) -> bool:
        """Whether all candidates have ended."""
        return bool(self._candidates) and not self.request.sequences

    def begin(self, cache: SlotCache) -> None:
        """Start the first candidate."""
        self._cache = cache
        candidate = self._first(self.request.slots[0])
        candidate.append_forced()
        candidate.prepare_next()
        self._add(candidate)
        if candidate.complete:  # Its constraint left no choice at all.
            self._fork(candidate)
            self._release_complete()

    def draft(self) -> None:
        """Guess what comes next of a candidate that runs alone."""
        # The others start with a copy of what the first one ran: nothing of it may be a guess.
        if len(self._running) != 1 or len(self._candidates) < self._count:
            return
        [(sequence, candidate)] = self._running.items()
        if sequence.to_run - self._cache.lengths[sequence.slot] == 1:
            candidate.draft()

    def accept(self, rows: Items[Row], logits: LogitsRows) -> None:
        """Take the logits of each sequence in turn."""
        for sequence, group in groupby(rows, key=lambda row: row.sequence):
            self._accept(self._running[sequence], list(group), logits)
        first = self._candidates[0]
        if first.complete and len(self._candidates) < self._count:
            self._fork(first)
        self._release_complete()

    def _accept(self, candidate: Candidate, rows: Items[Row], logits: LogitsRows) -> None:
        """Take logits up to the first token that was guessed wrong."""
        sequence = candidate.sequence
        drafts, known = sequence.drafts, len(sequence.tokens)
        accepted = 0
        for _, position, row in rows:
            if position >= known:
                if sequence.tokens[position : position + 1] != [drafts[position - known]]:
                    break
                accepted += 1
            self._take(candidate, position + 1, logits, row)
        drafted = rows[-1].position + 1 - known
        if drafted > 0 and candidate.lookup is not None:
            candidate.lookup.record(drafted, accepted)
            self._cache.truncate(sequence.slot, known + accepted)
        sequence.drafts = []

    def _take(self, candidate: Candidate, following: int, logits: LogitsRows, row: int) -> None:
        """Use the logits of what follows a position: of the prompt, known or to be chosen."""
        sequence = candidate.sequence
        if following < sequence.prompt_length:
            self._prompt_logprobs.add(following, logits, row)
        elif following < len(sequence.tokens):
            candidate.score(sequence.tokens[following], logits, row)
        elif len(self._candidates) < self._count:
            self._fork(candidate)
            for each in self._candidates:
                self._grow(each, logits, row)
        elif sequence.grows:
            self._grow(candidate, logits, row)

    def deltas(self) -> list[Delta]:
        """Return what is new, if the client wants text as it comes."""
        if not self._generation.stream:
            return []
        return [delta for candidate in self._candidates if (delta := candidate.delta())]

    def expire(self, finished: float) -> GenerationResult | ScoreResult | ServerError:
        """Return what there is, if the client wants that."""
        if not self._generation.params.stopping.return_partial_on_time_limit:
            return super().expire(finished)
        if not self._candidates:
            self._candidates.append(self._first(slot=-1))
        missing = range(len(self._candidates), self._count)
        self._candidates += [self._candidates[0].fork(index, slot=-1) for index in missing]
        for candidate in self._candidates:
            candidate.interrupt(FinishReason.TIME_LIMIT)
        return self.result(finished)

    def result(self, finished: float) -> GenerationResult:
        """Return all candidates."""
        candidates = [candidate.result() for candidate in self._candidates]
        return GenerationResult(
            candidates=tuple(candidates),
            prompt_logprobs=tuple(self._prompt_logprobs.positions),
            usage=Usage(
                prompt_tokens=len(self._generation.prompt),
                cached_tokens=self.request.cached_tokens,
                completion_tokens=sum(len(candidate.token_ids) for candidate in candidates),
                forced_tokens=sum(candidate.forced for candidate in self._candidates),
                drafted_tokens=sum(each.lookup.drafted for each in self._candidates if each.lookup),
                accepted_tokens=sum(
                    each.lookup.accepted for each in self._candidates if each.lookup
                ),
            ),
            timing=self.timing(finished),
            seed=self._generation.seed,
        )

    def _first(self, slot: int) -> Candidate:
        """Return a candidate that has the prompt only."""
        sequence = Sequence(
            list(self._generation.prompt),
            prompt_length=len(self._generation.prompt),
            slot=slot,
            logits_from=self.request.logits_from,
        )
        return Candidate(self._generation, 0, sequence, self._generation.constraint)

    def _add(self, candidate: Candidate) -> None:
        self._candidates.append(candidate)
        self._running[candidate.sequence] = candidate
        self.request.sequences.append(candidate.sequence)

    def _fork(self, first: Candidate) -> None:
        """Start the other candidates where the first one stands."""
        for index in range(1, self._count):
            slot = self.request.slots[index]
            self._cache.fork(first.sequence.slot, slot)
            self._add(first.fork(index, slot))

    def _grow(self, candidate: Candidate, logits: LogitsRows, row: int) -> None:
        """Append a token, and what its constraint forces to follow it."""
        sequence = candidate.sequence
        if self._sampler.takes_argmax and candidate.constraint is None:
            token_id: int | None = logits.argmax[row]
        else:
            token_id = self._sampler.choose(
                logits.row(row),
                sequence.tokens,
                sequence.prompt_length,
                candidate.rng,
                candidate.allowed,
            )
        if token_id is None:
            candidate.finish(FinishReason.EOS)
            return
        candidate.append(token_id)
        candidate.score(token_id, logits, row)
        candidate.append_forced()
        candidate.prepare_next()

    def _release_complete(self) -> None:
        """Give back the slots of candidates that need no more runs."""
        for candidate in [c for c in self._running.values() if c.complete]:
            sequence = candidate.sequence
            del self._running[sequence]
            self.request.sequences.remove(sequence)
            self.request.slots.remove(sequence.slot)
            self._cache.free(sequence.slot)
