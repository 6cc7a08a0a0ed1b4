"""What comes of a request: the pieces of a stream, and the whole."""

from dataclasses import dataclass

from gpt2flow.server.engine.sequence import FinishReason
from gpt2flow.server.errors import ServerError


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and the natural logarithm of its probability; None where nothing precedes it."""

    token_id: int
    logprob: float | None


@dataclass(frozen=True, slots=True)
class PositionLogprobs:
    """The token of one position, and the likeliest ones there, best first."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """One continuation.

    Attributes:
        text: Cut before a stop string; starts with the prompt if that was asked for.
        stop_string: The stop string that ended it, or empty.
        token_ids: All produced tokens, the one that ended it included.
        finish_reason: Why it ended.
        cumulative_logprob: Sum over the produced tokens; None under a constraint, unless
            log-probabilities were asked for.
        beam_score: What it was ranked by, in beam search.
        logprobs: One entry a produced token, if asked for.
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
    """What a request cost, in tokens."""

    prompt_tokens: int
    completion_tokens: int = 0
    forced_tokens: int = 0
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time went, in seconds."""

    queue: float
    prefill: float
    decode: float
    total: float


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """All that came of one prompt."""

    candidates: tuple[CandidateResult, ...]
    prompt_logprobs: tuple[PositionLogprobs, ...]
    usage: Usage
    timing: Timing
    seed: int


@dataclass(frozen=True, slots=True)
class ContinuationScore:
    """The log-likelihood of one continuation, token for token."""

    tokens: tuple[TokenLogprob, ...]

    @property
    def total(self) -> float:
        """Sum of the log-probabilities."""
        return sum(token.logprob or 0.0 for token in self.tokens)

    @property
    def mean(self) -> float:
        """Log-likelihood per token."""
        return self.total / len(self.tokens)


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """All that came of scoring the continuations of one prompt."""

    scores: tuple[ContinuationScore, ...]
    usage: Usage
    timing: Timing


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new of one candidate."""

    index: int
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[PositionLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """A message from the engine about one request; `Delta` is the only one that is not the last."""

    request_id: int
    content: Delta | GenerationResult | ScoreResult | ServerError

    @property
    def last(self) -> bool:
        """Whether nothing follows for this request."""
        return not isinstance(self.content, Delta)
