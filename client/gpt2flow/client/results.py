"""What comes back, as plain frozen objects."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
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
    request_id: str

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
class ContinuationScore:
    """How likely one continuation is; `total_logprob` is the sum over its tokens."""

    tokens: tuple[TokenLogprob, ...]
    total_logprob: float
    perplexity: float


@dataclass(frozen=True)
class Scores:
    """How likely continuations of one prompt are.

    Attributes:
        scores: In the order of the continuations.
        ranking: Their indices, best first by log-likelihood per token.
    """

    scores: tuple[ContinuationScore, ...]
    ranking: tuple[int, ...]
    usage: Usage
    timing: Timing
    model: str
    fingerprint: str
    request_id: str


@dataclass(frozen=True)
class Token:
    """A token and the bytes of the UTF-8 text that it covers."""

    id: int
    piece: bytes
    start: int
    end: int


@dataclass(frozen=True)
class ModelLimits:
    """What a request to a model may ask for at most; the message says what each counts."""

    context_length: int
    max_sequences: int
    max_queued: int
    max_beams: int
    max_candidates: int
    max_top_logprobs: int
    default_max_new_tokens: int
    max_message_bytes: int
    max_prompts: int
    max_continuations: int
    max_stop_strings: int
    max_stop_string_bytes: int
    max_stop_token_ids: int
    max_bad_words: int
    max_bad_word_bytes: int
    max_logit_biases: int
    max_choices: int
    max_constraint_bytes: int
    max_grammar_ms: int


@dataclass(frozen=True)
class Model:
    """A loaded model."""

    name: str
    fingerprint: str
    profile: str
    parameters: int
    vocabulary_size: int
    limits: ModelLimits
    quality: dict[str, Any]
    recipe: dict[str, Any]


def generations(answer: pb.GenerateResponse, request_id: str) -> list[Generation]:
    """Read the answer to several prompts."""
    return [_generation(r, answer.model, answer.fingerprint, request_id) for r in answer.results]


class Stream:
    """Reads the messages of one stream and puts together what they streamed."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._deltas: dict[int, list[Delta]] = defaultdict(list)
        self.begun = False

    def item(self, message: pb.GenerateStreamResponse) -> Delta | Generation:
        """Read the next message; the last one is the whole generation."""
        self.begun = True
        if message.HasField("delta"):
            delta = _delta(message.delta)
            self._deltas[delta.index].append(delta)
            return delta
        end = message.end
        whole = _generation(end.result, end.model, end.fingerprint, self._request_id)
        return replace(whole, candidates=tuple(self._with_deltas(c) for c in whole.candidates))

    def _with_deltas(self, candidate: Candidate) -> Candidate:
        deltas = self._deltas.get(candidate.index)
        if deltas is None:
            return candidate
        return replace(
            candidate,
            text="".join(delta.text for delta in deltas),
            token_ids=tuple(token for delta in deltas for token in delta.token_ids),
            logprobs=tuple(entry for delta in deltas for entry in delta.logprobs),
        )


def scores(answer: pb.ScoreResponse, request_id: str) -> Scores:
    """Read the answer to a request for scores."""
    return Scores(
        scores=tuple(
            ContinuationScore(
                tuple(_token_logprob(t) for t in score.tokens),
                score.total_logprob,
                score.perplexity,
            )
            for score in answer.scores
        ),
        ranking=tuple(answer.ranking),
        usage=_usage(answer.usage),
        timing=_timing(answer.timing),
        model=answer.model,
        fingerprint=answer.fingerprint,
        request_id=request_id,
    )


def token(message: pb.Token) -> Token:
    """Read one token."""
    return Token(message.id, message.piece, message.start, message.end)


def model(message: pb.Model) -> Model:
    """Read one model."""
    return Model(
        name=message.name,
        fingerprint=message.fingerprint,
        profile=message.profile,
        parameters=message.parameters,
        vocabulary_size=message.vocabulary_size,
        limits=_limits(message.limits),
        quality=json_format.MessageToDict(message.quality),
        recipe=json_format.MessageToDict(message.recipe),
    )


def _limits(message: pb.ModelLimits) -> ModelLimits:
    return ModelLimits(
        **{field.name: getattr(message, field.name) for field in fields(ModelLimits)}
    )


def _generation(
    result: pb.GenerationResult, model: str, fingerprint: str, request_id: str
) -> Generation:
    return Generation(
        candidates=tuple(_candidate(c) for c in result.candidates),
        prompt_logprobs=_logprobs(result.prompt_logprobs),
        usage=_usage(result.usage),
        timing=_timing(result.timing),
        seed=result.seed,
        model=model,
        fingerprint=fingerprint,
        request_id=request_id,
    )


def _delta(message: pb.CandidateDelta) -> Delta:
    return Delta(message.index, message.text, tuple(message.token_ids), _logprobs(message.logprobs))


def _usage(message: pb.Usage) -> Usage:
    return Usage(
        message.prompt_tokens,
        message.cached_tokens,
        message.completion_tokens,
        message.forced_tokens,
        message.drafted_tokens,
        message.accepted_tokens,
    )


def _timing(message: pb.Timing) -> Timing:
    return Timing(message.queue_ms, message.prefill_ms, message.decode_ms, message.total_ms)


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
        _token_logprob(p.chosen, tuple(_token_logprob(t) for t in p.top)) for p in positions
    )


def _token_logprob(message: pb.TokenLogprob, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    value = message.logprob if message.HasField("logprob") else None
    return TokenLogprob(message.token_id, message.token, value, top)
