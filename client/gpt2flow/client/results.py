"""Results of a call, as frozen dataclasses."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from google.protobuf import json_format

from gpt2flow.inference.v1 import inference_pb2 as pb


@dataclass(frozen=True)
class TokenLogprob:
    """Token with its log-probability.

    Attributes:
        token_id: Id of the token.
        token: Bytes of the token, possibly only a part of a UTF-8 character.
        logprob: Natural logarithm of the probability that the model gave the token, before
            any logits processor. None at the first token of a prompt, which nothing precedes.
        top: Likeliest tokens at the same position, best first; empty unless requested with
            `Options.top_logprobs`.
    """

    token_id: int
    token: bytes
    logprob: float | None
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True)
class Candidate:
    """One continuation of a prompt.

    Attributes:
        index: Position among the candidates of the prompt, from 0.
        text: Generated text, without the stop string that ended it.
        token_ids: Ids of the generated tokens; empty unless requested with
            `Options.token_ids`.
        finish_reason: Reason for the end: `eos`, `stop` (string or token id), `length`,
            `constraint` (the output is complete) or `time_limit`.
        stop_string: Stop string that ended the text; empty if none did.
        cumulative_logprob: Sum of the log-probabilities of the generated tokens. None under
            a constraint, unless log-probabilities were requested.
        beam_score: Score that ranks the candidate in beam search; 0 in sampling.
        logprobs: One entry per generated token; empty unless requested with
            `Options.logprobs`.
    """

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
    """Token counts of one prompt's generation or of one scoring request.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        cached_tokens: Prompt tokens taken from the prefix cache.
        completion_tokens: Generated tokens, over all candidates.
        forced_tokens: Generated tokens that were the only ones the constraint allowed.
        drafted_tokens: Tokens drafted by speculative decoding.
        accepted_tokens: Drafted tokens that verification accepted.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    forced_tokens: int
    drafted_tokens: int
    accepted_tokens: int


@dataclass(frozen=True)
class Timing:
    """Durations measured by the server, in milliseconds.

    Attributes:
        queue_ms: Arrival of the request to its first model run.
        prefill_ms: Model runs over the prompt.
        decode_ms: First generated token to the last.
        total_ms: Arrival of the request to its response.
    """

    queue_ms: float
    prefill_ms: float
    decode_ms: float
    total_ms: float


@dataclass(frozen=True)
class Generation:
    """Result of one prompt.

    Attributes:
        candidates: Continuations of the prompt; best first in beam search.
        prompt_logprobs: One entry per prompt token; empty unless requested with
            `Options.prompt_logprobs`.
        usage: Token counts.
        timing: Durations on the server.
        seed: Seed of the random numbers, from the request or drawn by the server.
        model: Name of the model.
        fingerprint: SHA-256 of the bundle's manifest, in hexadecimal.
        request_id: Id of the call in the server's log.
    """

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
        """Text of the first candidate."""
        return self.candidates[0].text


@dataclass(frozen=True)
class Delta:
    """New text of one candidate in a stream.

    Attributes:
        index: Index of the candidate.
        text: Text to append, always whole characters.
        token_ids: Token ids to append; empty unless requested with `Options.token_ids`.
        logprobs: Log-probabilities of the new tokens; empty unless requested with
            `Options.logprobs`.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class ContinuationScore:
    """Log-likelihood of one continuation.

    Attributes:
        tokens: Tokens of the continuation with their log-probabilities.
        total_logprob: Sum of the log-probabilities, as natural logarithms.
        perplexity: `exp(-total_logprob / len(tokens))`.
    """

    tokens: tuple[TokenLogprob, ...]
    total_logprob: float
    perplexity: float


@dataclass(frozen=True)
class Scores:
    """Log-likelihoods of the continuations of one prompt.

    Attributes:
        scores: One score per continuation, in the order of the request.
        ranking: Indices of the continuations, best first by log-likelihood per token.
        usage: Token counts.
        timing: Durations on the server.
        model: Name of the model.
        fingerprint: SHA-256 of the bundle's manifest, in hexadecimal.
        request_id: Id of the call in the server's log.
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
    """Token of a text and its position.

    Attributes:
        id: Id of the token.
        piece: Bytes of the token.
        start: Offset of its first byte in the UTF-8 text.
        end: Offset after its last byte.
    """

    id: int
    piece: bytes
    start: int
    end: int


@dataclass(frozen=True)
class ModelLimits:
    """Limits of the requests to one model.

    Attributes:
        context_length: Maximum number of prompt and new tokens together.
        max_sequences: Maximum number of sequences that run at the same time.
        max_queued: Maximum number of waiting requests.
        max_beams: Maximum number of beams per request.
        max_candidates: Maximum number of candidates per request.
        max_top_logprobs: Maximum number of alternatives per position.
        default_max_new_tokens: Limit of new tokens in requests that set none.
        max_message_bytes: Maximum size of a request message.
        max_prompts: Maximum number of prompts per `generate_many`.
        max_continuations: Maximum number of continuations per `score`.
        max_stop_strings: Maximum number of stop strings per request.
        max_stop_string_bytes: Maximum size of a stop string.
        max_stop_token_ids: Maximum number of stop token ids per request.
        max_bad_words: Maximum number of bad words per request.
        max_bad_word_bytes: Maximum size of a bad word.
        max_logit_biases: Maximum number of logit biases per request.
        max_choices: Maximum number of values of a `Choices` constraint.
        max_constraint_bytes: Maximum size of a schema, expression or grammar, or of all
            values of a `Choices` constraint together.
        max_grammar_ms: Maximum time to compile a constraint, in milliseconds.
    """

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
    """Loaded model of a server.

    Attributes:
        name: Name of the model in requests.
        fingerprint: SHA-256 of the bundle's manifest, in hexadecimal.
        profile: Export profile, such as `fp32`, `int8` or `int4`.
        parameters: Number of parameters of the checkpoint.
        vocabulary_size: Number of tokens in the vocabulary.
        limits: Limits of requests.
        quality: Quality figures of the bundle's manifest.
        recipe: Export recipe of the bundle's manifest: bits, block sizes, cache type.
        kernels: Kernels that its operators run on, such as `avx512` or `onnxruntime`.
    """

    name: str
    fingerprint: str
    profile: str
    parameters: int
    vocabulary_size: int
    limits: ModelLimits
    quality: dict[str, Any]
    recipe: dict[str, Any]
    kernels: str


def parse_generations(response: pb.GenerateResponse, request_id: str) -> list[Generation]:
    """Return one generation per prompt."""
    return [
        _parse_generation(result, response.model, response.fingerprint, request_id)
        for result in response.results
    ]


class StreamParser:
    """Parser of one stream that reassembles its candidates.

    Attributes:
        started: True once a message has arrived.
    """

    def __init__(self, request_id: str) -> None:
        self.started = False
        self._request_id = request_id
        self._deltas: dict[int, list[Delta]] = defaultdict(list)

    def parse(self, message: pb.GenerateStreamResponse) -> Delta | Generation:
        """Return a delta, or the whole generation for the last message."""
        self.started = True
        if message.HasField("delta"):
            delta = _parse_delta(message.delta)
            self._deltas[delta.index].append(delta)
            return delta
        end = message.end
        whole = _parse_generation(end.result, end.model, end.fingerprint, self._request_id)
        return replace(whole, candidates=tuple(self._with_deltas(c) for c in whole.candidates))

    def _with_deltas(self, candidate: Candidate) -> Candidate:
        """Return a candidate with what was streamed, which the last message omits."""
        deltas = self._deltas.get(candidate.index)
        if deltas is None:
            return candidate
        return replace(
            candidate,
            text="".join(delta.text for delta in deltas),
            token_ids=tuple(token for delta in deltas for token in delta.token_ids),
            logprobs=tuple(entry for delta in deltas for entry in delta.logprobs),
        )


def parse_scores(response: pb.ScoreResponse, request_id: str) -> Scores:
    """Return the scores of a response."""
    return Scores(
        scores=tuple(
            ContinuationScore(
                tuple(_parse_token_logprob(t) for t in score.tokens),
                score.total_logprob,
                score.perplexity,
            )
            for score in response.scores
        ),
        ranking=tuple(response.ranking),
        usage=_parse_usage(response.usage),
        timing=_parse_timing(response.timing),
        model=response.model,
        fingerprint=response.fingerprint,
        request_id=request_id,
    )


def parse_token(message: pb.Token) -> Token:
    """Return the token of a message."""
    return Token(message.id, message.piece, message.start, message.end)


def parse_model(message: pb.Model) -> Model:
    """Return the model of a message."""
    return Model(
        name=message.name,
        fingerprint=message.fingerprint,
        profile=message.profile,
        parameters=message.parameters,
        vocabulary_size=message.vocabulary_size,
        limits=_parse_limits(message.limits),
        quality=json_format.MessageToDict(message.quality),
        recipe=json_format.MessageToDict(message.recipe),
        kernels=message.kernels,
    )


def _parse_limits(message: pb.ModelLimits) -> ModelLimits:
    return ModelLimits(
        **{field.name: getattr(message, field.name) for field in fields(ModelLimits)}
    )


def _parse_generation(
    result: pb.GenerationResult, model: str, fingerprint: str, request_id: str
) -> Generation:
    return Generation(
        candidates=tuple(_parse_candidate(c) for c in result.candidates),
        prompt_logprobs=_parse_logprobs(result.prompt_logprobs),
        usage=_parse_usage(result.usage),
        timing=_parse_timing(result.timing),
        seed=result.seed,
        model=model,
        fingerprint=fingerprint,
        request_id=request_id,
    )


def _parse_delta(message: pb.CandidateDelta) -> Delta:
    return Delta(
        message.index, message.text, tuple(message.token_ids), _parse_logprobs(message.logprobs)
    )


def _parse_usage(message: pb.Usage) -> Usage:
    return Usage(
        message.prompt_tokens,
        message.cached_tokens,
        message.completion_tokens,
        message.forced_tokens,
        message.drafted_tokens,
        message.accepted_tokens,
    )


def _parse_timing(message: pb.Timing) -> Timing:
    return Timing(message.queue_ms, message.prefill_ms, message.decode_ms, message.total_ms)


def _parse_candidate(message: pb.Candidate) -> Candidate:
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
        logprobs=_parse_logprobs(message.logprobs),
    )


def _parse_logprobs(positions: Sequence[pb.PositionLogprobs]) -> tuple[TokenLogprob, ...]:
    return tuple(
        _parse_token_logprob(p.chosen, tuple(_parse_token_logprob(t) for t in p.top))
        for p in positions
    )


def _parse_token_logprob(
    message: pb.TokenLogprob, top: tuple[TokenLogprob, ...] = ()
) -> TokenLogprob:
    value = message.logprob if message.HasField("logprob") else None
    return TokenLogprob(message.token_id, message.token, value, top)
