"""What comes back, as plain frozen objects."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from gpt2flow.inference.v1 import inference_pb2 as pb


@dataclass(frozen=True)
class TokenLogprob:
    """A token with the natural logarithm of its probability."""

    token_id: int
    token: bytes
    logprob: float | None
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True)
class Candidate:
    """One continuation; `finish_reason` is lower case, as in `eos` or `length`."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    stop_string: str
    cumulative_logprob: float | None
    beam_score: float
    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class Usage:
    """What a request cost, in tokens."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    forced_tokens: int
    drafted_tokens: int
    accepted_tokens: int


@dataclass(frozen=True)
class Timing:
    """Where the time went, in milliseconds."""

    queue_ms: float
    prefill_ms: float
    decode_ms: float
    total_ms: float


@dataclass(frozen=True)
class Generation:
    """All that came of one prompt."""

    candidates: tuple[Candidate, ...]
    prompt_logprobs: tuple[TokenLogprob, ...]
    usage: Usage
    timing: Timing
    seed: int
    model: str
    fingerprint: str

    @property
    def text(self) -> str:
        """The text of the first candidate."""
        return self.candidates[0].text


@dataclass(frozen=True)
class Delta:
    """New text of one candidate of a stream."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class Token:
    """A token and the bytes of the UTF-8 text that it covers."""

    id: int
    piece: bytes
    start: int
    end: int


@dataclass(frozen=True)
class Model:
    """A loaded model."""

    name: str
    fingerprint: str
    profile: str
    parameters: int
    vocabulary_size: int
    context_length: int
    max_sequences: int
    default_max_new_tokens: int
    quality: dict[str, Any]
    recipe: dict[str, Any]


def generation(result: pb.GenerationResult, model: str, fingerprint: str) -> Generation:
    """Reads one result."""
    usage, timing = result.usage, result.timing
    return Generation(
        candidates=tuple(_candidate(c) for c in result.candidates),
        prompt_logprobs=_logprobs(result.prompt_logprobs),
        usage=Usage(
            usage.prompt_tokens,
            usage.cached_tokens,
            usage.completion_tokens,
            usage.forced_tokens,
            usage.drafted_tokens,
            usage.accepted_tokens,
        ),
        timing=Timing(timing.queue_ms, timing.prefill_ms, timing.decode_ms, timing.total_ms),
        seed=result.seed,
        model=model,
        fingerprint=fingerprint,
    )


def delta(message: pb.CandidateDelta) -> Delta:
    """Reads one delta."""
    return Delta(message.index, message.text, tuple(message.token_ids), _logprobs(message.logprobs))


def token(message: pb.Token) -> Token:
    """Reads one token."""
    return Token(message.id, message.piece, message.start, message.end)


def model(message: pb.Model) -> Model:
    """Reads one model."""
    return Model(
        name=message.name,
        fingerprint=message.fingerprint,
        profile=message.profile,
        parameters=message.parameters,
        vocabulary_size=message.vocabulary_size,
        context_length=message.limits.context_length,
        max_sequences=message.limits.max_sequences,
        default_max_new_tokens=message.limits.default_max_new_tokens,
        quality=json_format.MessageToDict(message.quality),
        recipe=json_format.MessageToDict(message.recipe),
    )


def _candidate(message: pb.Candidate) -> Candidate:
    reason = pb.FinishReason.Name(message.finish_reason)
    return Candidate(
        index=message.index,
        text=message.text,
        token_ids=tuple(message.token_ids),
        finish_reason=reason.removeprefix("FINISH_REASON_").lower(),
        stop_string=message.stop_string,
        cumulative_logprob=(
            message.cumulative_logprob if message.HasField("cumulative_logprob") else None
        ),
        beam_score=message.beam_score,
        logprobs=_logprobs(message.logprobs),
    )


def _logprobs(positions: Sequence[pb.PositionLogprobs]) -> tuple[TokenLogprob, ...]:
    return tuple(
        _token_logprob(p.chosen, tuple(_token_logprob(t, ()) for t in p.top)) for p in positions
    )


def _token_logprob(message: pb.TokenLogprob, top: tuple[TokenLogprob, ...]) -> TokenLogprob:
    value = message.logprob if message.HasField("logprob") else None
    return TokenLogprob(message.token_id, message.token, value, top)
