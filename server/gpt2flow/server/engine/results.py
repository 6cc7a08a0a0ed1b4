"""Results of a request: the chunks of a stream, and the whole."""

from dataclasses import dataclass

from gpt2flow.server.engine.sequence import FinishReason
from gpt2flow.server.errors import ServerError


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Token and the natural logarithm of its probability.

    Attributes:
        token_id: Id of the token.
        logprob: Logarithm; None for a token that no logits predict.
    """

    token_id: int
    logprob: float | None


@dataclass(frozen=True, slots=True)
class PositionLogprobs:
    """Token of one position, and the likeliest alternatives, best first."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """One continuation of a prompt.

    Attributes:
        text: Text before the stop string; starts with the prompt if the client requested echo.
        stop_string: Stop string that ended it, or empty.
        token_ids: Output tokens, including the one that ended it.
        finish_reason: Reason of its end.
        cumulative_logprob: Sum over the output tokens; None under a constraint without
            requested log-probabilities.
        beam_score: Score that ranks it in beam search.
        logprobs: One entry per output token, if requested.
    """

    text: str
    stop_string: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    cumulative_logprob: float | None = 0.0
    beam_score: float = 0.0
    logprobs: tuple[PositionLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Cost of a request, in tokens."""

    prompt_tokens: int
    completion_tokens: int = 0
    forced_tokens: int = 0
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    truncated_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations of the phases of a request, in seconds."""

    queue: float
    prefill: float
    decode: float
    total: float


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """Complete result of generating from one prompt."""

    candidates: tuple[CandidateResult, ...]
    prompt_logprobs: tuple[PositionLogprobs, ...]
    usage: Usage
    timing: Timing
    seed: int


@dataclass(frozen=True, slots=True)
class ContinuationScore:
    """Log-likelihood of one continuation, token by token."""

    tokens: tuple[TokenLogprob, ...]

    @property
    def total(self) -> float:
        """Sum of the log-probabilities."""
        return sum(token.logprob or 0.0 for token in self.tokens)

    @property
    def mean(self) -> float:
        """Mean log-probability per token."""
        return self.total / len(self.tokens)


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """Complete result of scoring the continuations of one prompt."""

    scores: tuple[ContinuationScore, ...]
    usage: Usage
    timing: Timing


@dataclass(frozen=True, slots=True)
class Delta:
    """Next chunk of one candidate of a stream."""

    index: int
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[PositionLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """Message of the engine about one request.

    Attributes:
        request_id: Id of the request.
        content: Chunk of a stream; or result or error, which is the last message.
    """

    request_id: int
    content: Delta | GenerationResult | ScoreResult | ServerError

    @property
    def last(self) -> bool:
        """True for a result or an error, which ends the request."""
        return not isinstance(self.content, Delta)
