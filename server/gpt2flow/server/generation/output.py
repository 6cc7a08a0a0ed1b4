"""One output as it grows: tokens, text, log-probabilities, and what ends it."""

from gpt2flow.server.engine.results import CandidateResult, Delta
from gpt2flow.server.engine.sequence import FinishReason
from gpt2flow.server.generation.logprobs import OutputLogprobs
from gpt2flow.server.generation.spec import Generation
from gpt2flow.server.sampling.filters import Ids
from gpt2flow.server.sampling.logits import LogitsRows
from gpt2flow.server.tokenizer.text_stream import TextStream


class Output:
    """Continuation of a prompt, for sampling and beam search alike.

    After each token the conditions are checked in one order: ending tokens, stop strings, the
    constraint, the length.

    Attributes:
        tokens: Token ids of the prompt, then of the output.
        finish_reason: Reason of the end; None while it grows.
        forced: Number of tokens that the constraint forced.
    """

    def __init__(
        self, generation: Generation, *, scored: bool, stream: TextStream | None = None
    ) -> None:
        """Start with the prompt alone.

        Args:
            generation: Request that this is an output of.
            scored: Whether each token gets a log-probability.
            stream: Its text so far; None starts one.
        """
        self.tokens = list(generation.prompt)
        self.finish_reason: FinishReason | None = None
        self.forced = 0
        self._generation = generation
        self._scored = scored
        self._constraint = generation.constraint
        self._stream = generation.text_stream() if stream is None else stream
        self._pieces = [generation.echo] if generation.echo else []
        self._logprobs = OutputLogprobs(generation)
        self._sent_pieces = 0
        self._sent_tokens = 0

    @property
    def new_tokens(self) -> int:
        """Number of tokens after the prompt."""
        return len(self.tokens) - len(self._generation.prompt)

    @property
    def constrained(self) -> bool:
        """True if a constraint restricts the next token."""
        return self._constraint is not None

    @property
    def complete(self) -> bool:
        """True if it has ended, and its tokens are scored if requested."""
        return self.finish_reason is not None and self._ready_tokens == self.new_tokens

    @property
    def _ready_tokens(self) -> int:
        """Number of tokens that need nothing more before they are sent."""
        return self._logprobs.count if self._scored else self.new_tokens

    def fork(self) -> "Output":
        """Return an output with the same past, of which nothing was sent."""
        twin = Output(self._generation, scored=self._scored, stream=self._stream.fork())
        twin.tokens = list(self.tokens)
        twin.finish_reason = self.finish_reason
        twin.forced = self.forced
        twin._constraint = None if self._constraint is None else self._constraint.fork()
        twin._pieces = list(self._pieces)
        twin._logprobs = self._logprobs.fork()
        return twin

    def append(self, token_id: int) -> None:
        """Append a token, and end the output if a condition is met."""
        generation = self._generation
        self.tokens.append(token_id)
        if reason := generation.endings.get(token_id):
            self.finish(reason)
            return
        count = self.new_tokens
        check_stops = count >= generation.params.stopping.min_new_tokens
        if text := self._stream.push(token_id, check_stops=check_stops):
            self._pieces.append(text)
        if stop := self._stream.stop_string:
            if generation.params.stopping.include_stop_string:
                self._pieces.append(stop)
            self.finish(FinishReason.STOP)
        elif self._advance(token_id):
            self.finish(FinishReason.CONSTRAINT)
        elif count >= generation.max_new_tokens:
            self.finish(FinishReason.LENGTH)

    def append_forced(self) -> None:
        """Append the tokens that the constraint leaves no choice about."""
        if self._constraint is None or self.finish_reason is not None:
            return
        for token_id in self._constraint.forced():
            self.forced += 1
            self.append(token_id)
            if self.finish_reason is not None:
                return

    def allowed(self) -> Ids | None:
        """Return the token ids that the constraint admits next; None is all."""
        return None if self._constraint is None else self._constraint.allowed()

    def valid_start(self, tokens: list[int]) -> list[int]:
        """Return the leading tokens that the constraint admits one after the other."""
        return tokens if self._constraint is None else self._constraint.valid_start(tokens)

    def score(self, token_id: int, logits: LogitsRows, row: int) -> None:
        """Score the first token without log-probability, if tokens are scored."""
        if self._scored:
            self._logprobs.add(token_id, logits, row)

    def finish(self, reason: FinishReason) -> None:
        """End the output, and emit its buffered text."""
        self.finish_reason = reason
        if text := self._stream.finish():
            self._pieces.append(text)

    def interrupt(self, reason: FinishReason) -> None:
        """End the output early; tokens without logits keep no log-probability."""
        if self.finish_reason is None:
            self.finish(reason)
        self._logprobs.skip(self.tokens[len(self._generation.prompt) + self._logprobs.count :])

    def delta(self, index: int) -> Delta | None:
        """Return the changes since the last call, or None.

        Args:
            index: Number of the candidate.
        """
        text = "".join(self._pieces[self._sent_pieces :])
        self._sent_pieces = len(self._pieces)
        sent, ready = self._sent_tokens, self._ready_tokens
        self._sent_tokens = ready
        tokens: tuple[int, ...] = ()
        if self._generation.params.output.token_ids:
            start = len(self._generation.prompt)
            tokens = tuple(self.tokens[start + sent : start + ready])
        logprobs = tuple(self._logprobs.positions[sent:ready])
        if text or tokens or logprobs:
            return Delta(index, text, tokens, logprobs)
        return None

    def result(self, beam_score: float = 0.0) -> CandidateResult:
        """Return the whole of an output that has ended."""
        assert self.finish_reason is not None
        return CandidateResult(
            text="".join(self._pieces),
            token_ids=tuple(self.tokens[len(self._generation.prompt) :]),
            finish_reason=self.finish_reason,
            stop_string=self._stream.stop_string,
            cumulative_logprob=self._logprobs.total if self._scored else None,
            beam_score=beam_score,
            logprobs=tuple(self._logprobs.positions),
        )

    def _advance(self, token_id: int) -> bool:
        """Advance the constraint; return whether it is complete."""
        if self._constraint is None:
            return False
        self._constraint.advance(token_id)
        return self._constraint.complete
