"""One continuation of a prompt: its text, its log-probabilities, when it ends."""

from dataclasses import replace

from gpt2flow.server.engine.results import CandidateResult, Delta, PositionLogprobs, TokenLogprob
from gpt2flow.server.engine.sequence import FinishReason, Sequence
from gpt2flow.server.generation.logprobs import position_logprobs
from gpt2flow.server.generation.prompt_lookup import PromptLookup
from gpt2flow.server.generation.spec import Generation
from gpt2flow.server.grammar.constraint import Constraint
from gpt2flow.server.sampling.filters import Ids
from gpt2flow.server.sampling.logits import LogitsRows
from gpt2flow.server.sampling.sampler import make_rng
from gpt2flow.server.tokenizer import TextStream

# Where a grammar allows fewer tokens, it is no text that could repeat what stands elsewhere.
_FREE_CHOICE = 256


class Candidate:
    """One continuation as it grows.

    Attributes:
        sequence: Its tokens.
        logprobs: One entry a scored token, if asked for.
        forced: How many of its tokens the constraint forced.
        allowed: The tokens among which the constraint lets the next one be chosen; None is all.
        lookup: Guesses what comes next; None where that is not wanted.
    """

    def __init__(
        self, generation: Generation, index: int, sequence: Sequence, constraint: Constraint | None
    ) -> None:
        self.index = index
        self.sequence = sequence
        self.constraint = constraint
        self.rng = make_rng(generation.seed, index)
        self.logprobs: list[PositionLogprobs] = []
        self.forced = 0
        self.allowed: Ids | None = None
        self.lookup: PromptLookup | None = None
        self._generation = generation
        self._stream = TextStream(generation.params.stopping.stop_strings)
        self._pieces = [generation.echo] if generation.echo else []
        self._cumulative = 0.0
        self._scored = 0
        self._sent_pieces = 0
        self._sent_tokens = 0

    @property
    def complete(self) -> bool:
        """Whether it ended and the log-probabilities of all its tokens are known."""
        return not self.sequence.grows and self._known == self.sequence.new_tokens

    @property
    def _known(self) -> int:
        """How many of its tokens are known with all that is wanted of them."""
        return self._scored if self._generation.scored else self.sequence.new_tokens

    def fork(self, index: int, slot: int) -> "Candidate":
        """Return a candidate with the same past and random numbers of its own."""
        source = self.sequence
        sequence = replace(source, tokens=list(source.tokens), slot=slot, drafts=[])
        constraint = None if self.constraint is None else self.constraint.fork()
        twin = Candidate(self._generation, index, sequence, constraint)
        twin.logprobs = list(self.logprobs)
        twin.forced = self.forced
        twin.allowed = self.allowed
        twin._stream = self._stream.fork()
        twin._pieces = list(self._pieces)
        twin._cumulative = self._cumulative
        twin._scored = self._scored
        return twin

    def append(self, token_id: int) -> None:
        """Append a token and decides whether the candidate ends with it."""
        sequence, generation = self.sequence, self._generation
        sequence.tokens.append(token_id)
        if reason := generation.endings.get(token_id):
            self.finish(reason)
            return
        piece = generation.tokenizer.piece(token_id)
        count = sequence.new_tokens
        check_stops = count >= generation.params.stopping.min_new_tokens
        if text := self._stream.push(piece, check_stops=check_stops):
            self._pieces.append(text)
        if self._stream.stop_string:
            self.finish(FinishReason.STOP)
        elif self.constraint is not None and self._completes(self.constraint, token_id):
            self.finish(FinishReason.CONSTRAINT)
        elif count >= generation.max_new_tokens:
            self.finish(FinishReason.LENGTH)

    def append_forced(self) -> None:
        """Append what the constraint leaves no choice about."""
        if self.constraint is None or not self.sequence.grows:
            return
        for token_id in self.constraint.forced():
            self.forced += 1
            self.append(token_id)
            if not self.sequence.grows:
                return

    def prepare_next(self) -> None:
        """Prepare the choice of the next token, once all that is known was appended."""
        sequence = self.sequence
        if not sequence.grows:
            return
        generation = self._generation
        if self.constraint is not None:
            self.allowed = self.constraint.allowed()
        if not generation.scored:
            sequence.logits_from = len(sequence.tokens) - 1
            # What changes the logits of a token looks at those of all.
            sequence.logit_ids = None if generation.processors else self.allowed

    def draft(self) -> None:
        """Guess what comes next, for one run."""
        sequence = self.sequence
        if not (self._generation.draft_tokens and sequence.grows):
            return
        if self.allowed is not None and len(self.allowed) < _FREE_CHOICE:
            return
        if self.lookup is None:
            self.lookup = PromptLookup(sequence.tokens, self._generation.draft_tokens)
        self.lookup.extend(sequence.tokens[len(self.lookup) :])
        # One token always comes of the run itself.
        limit = self._generation.max_new_tokens - sequence.new_tokens - 1
        sequence.drafts = self.lookup.propose(limit)
        if self.constraint is not None:
            sequence.drafts = self.constraint.valid_start(sequence.drafts)

    def score(self, token_id: int, logits: LogitsRows, row: int) -> None:
        """Note the log-probability of the next token that has none yet, if that is wanted."""
        if not self._generation.scored:
            return
        self._scored += 1
        self._cumulative += logits.logprob(row, token_id)
        output = self._generation.params.output
        if output.logprobs:
            self.logprobs.append(position_logprobs(logits, row, token_id, output.top_logprobs))

    def finish(self, reason: FinishReason) -> None:
        """End it; what was held back of its text is complete."""
        self.sequence.finish(reason)
        if text := self._stream.finish():
            self._pieces.append(text)

    def interrupt(self, reason: FinishReason) -> None:
        """End it from outside; tokens whose logits are not known stay without log-probability."""
        if self.sequence.grows:
            self.finish(reason)
        produced = self.sequence.tokens[self.sequence.prompt_length :]
        if self._generation.params.output.logprobs:
            unscored = produced[self._scored :]
            self.logprobs += [PositionLogprobs(TokenLogprob(token, None)) for token in unscored]
        self._scored = len(produced)

    def delta(self) -> Delta | None:
        """Return what is new since the last call; tokens come when their logits are known."""
        output, sequence = self._generation.params.output, self.sequence
        text = "".join(self._pieces[self._sent_pieces :])
        self._sent_pieces = len(self._pieces)
        sent, known = self._sent_tokens, self._known
        self._sent_tokens = known
        start = sequence.prompt_length
        tokens = tuple(sequence.tokens[start + sent : start + known]) if output.token_ids else ()
        logprobs = tuple(self.logprobs[sent:known])
        if text or tokens or logprobs:
            return Delta(self.index, text, tokens, logprobs)
        return None

    def result(self) -> CandidateResult:
        """Return the whole, once it has ended."""
        sequence = self.sequence
        assert sequence.finish_reason is not None
        return CandidateResult(
            text="".join(self._pieces),
            token_ids=tuple(sequence.tokens[sequence.prompt_length :]),
            finish_reason=sequence.finish_reason,
            stop_string=self._stream.stop_string,
            cumulative_logprob=self._cumulative if self._generation.scored else None,
            logprobs=tuple(self.logprobs),
        )

    @staticmethod
    def _completes(constraint: Constraint, token_id: int) -> bool:
        constraint.advance(token_id)
        return constraint.complete
