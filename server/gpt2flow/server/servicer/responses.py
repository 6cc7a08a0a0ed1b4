"""Conversion of domain types to response messages."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from google.protobuf.struct_pb2 import Struct

from gpt2flow.inference.orca.v3.load_report_pb2 import OrcaLoadReport
from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server.engine.results import (
    CandidateResult,
    Delta,
    Event,
    GenerationResult,
    PositionLogprobs,
    ScoreResult,
    Timing,
    TokenLogprob,
    Usage,
)
from gpt2flow.server.engine.sequence import FinishReason
from gpt2flow.server.errors import ServerError
from gpt2flow.server.limits import Limits
from gpt2flow.server.models.model import Model
from gpt2flow.server.params import BeamSearchParams, GenerationParams
from gpt2flow.server.telemetry.load_report import LoadReport
from gpt2flow.server.tokenizer.tokenizer import Token, Tokenizer

_FINISH_REASON = {
    FinishReason.EOS: pb.FINISH_REASON_EOS,
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.CONSTRAINT: pb.FINISH_REASON_CONSTRAINT,
    FinishReason.TIME_LIMIT: pb.FINISH_REASON_TIME_LIMIT,
}


def write_results(
    results: Iterable[GenerationResult], model: Model, params: GenerationParams
) -> pb.GenerateResponse:
    """Return the response of `Generate`."""
    token_ids = params.output.token_ids
    return pb.GenerateResponse(
        results=[_result(each, model.tokenizer, token_ids=token_ids) for each in results],
        model=model.name,
        fingerprint=model.bundle.fingerprint,
    )


def write_event(event: Event, model: Model, params: GenerationParams) -> pb.GenerateStreamResponse:
    """Return the message of a stream for one event.

    Raises:
        ServerError: The event is an error.
    """
    content = event.content
    if isinstance(content, Delta):
        return pb.GenerateStreamResponse(delta=_delta(content, model.tokenizer))
    if isinstance(content, ServerError):
        raise content
    assert isinstance(content, GenerationResult)
    result = _result(
        content,
        model.tokenizer,
        token_ids=params.output.token_ids,
        streamed=not isinstance(params.decoding, BeamSearchParams),
    )
    end = pb.StreamEnd(result=result, model=model.name, fingerprint=model.bundle.fingerprint)
    return pb.GenerateStreamResponse(end=end)


def write_scores(result: ScoreResult, model: Model) -> pb.ScoreResponse:
    """Return the response of `Score`."""
    order = sorted(range(len(result.scores)), key=lambda i: -result.scores[i].mean)
    return pb.ScoreResponse(
        scores=[
            pb.ContinuationScore(
                tokens=[_token(token, model.tokenizer) for token in score.tokens],
                total_logprob=score.total,
                perplexity=math.exp(min(-score.mean, 700)),  # Larger exponents overflow a double.
            )
            for score in result.scores
        ],
        ranking=order,
        usage=_usage(result.usage),
        timing=_timing(result.timing),
        model=model.name,
        fingerprint=model.bundle.fingerprint,
    )


def write_model(model: Model) -> pb.Model:
    """Return the description of a model."""
    manifest, limits = model.bundle.manifest, model.limits
    return pb.Model(
        name=model.name,
        fingerprint=model.bundle.fingerprint,
        profile=manifest.recipe.profile,
        parameters=manifest.source.parameters,
        vocabulary_size=limits.vocabulary_size,
        limits=_limits(limits),
        quality=_struct(manifest.quality.model_dump(mode="json") if manifest.quality else {}),
        recipe=_struct(manifest.recipe.model_dump(mode="json")),
        kernels=model.kernels,
        eos_token_ids=manifest.shape.eos_token_ids,
        tokenizer=model.tokenizer.kind,
        constraint_error=model.tokenizer.constraint_error,
        stored_choices=model.choices,
    )


def _limits(limits: Limits) -> pb.ModelLimits:
    """Return the limits of a model: settings, capped by its KV cache."""
    requests = {f"max_{name}": value for name, value in limits.requests}
    grammar_seconds = requests.pop("max_grammar_seconds")
    return pb.ModelLimits(
        **requests
        | {
            "context_length": limits.context_length,
            "max_sequences": limits.max_sequences,
            "max_queued": limits.max_queued,
            "max_beams": limits.max_beams,
            "max_candidates": limits.max_candidates,
            "max_top_logprobs": limits.max_top_logprobs,
            "default_max_new_tokens": limits.default_max_new_tokens,
            "max_grammar_ms": round(grammar_seconds * 1000),
        }
    )


def _delta(delta: Delta, tokenizer: Tokenizer) -> pb.CandidateDelta:
    return pb.CandidateDelta(
        index=delta.index,
        text=delta.text,
        token_ids=delta.token_ids,
        logprobs=_positions(delta.logprobs, tokenizer),
    )


def _result(
    result: GenerationResult, tokenizer: Tokenizer, *, token_ids: bool, streamed: bool = False
) -> pb.GenerationResult:
    """Return the message of a result.

    Args:
        result: The result of one prompt.
        tokenizer: Gives the bytes of tokens.
        token_ids: Whether the client requested them.
        streamed: Whether text, ids and log-probabilities were sent already.
    """
    return pb.GenerationResult(
        candidates=[
            _candidate(i, candidate, tokenizer, token_ids=token_ids, streamed=streamed)
            for i, candidate in enumerate(result.candidates)
        ],
        prompt_logprobs=_positions(result.prompt_logprobs, tokenizer),
        usage=_usage(result.usage),
        timing=_timing(result.timing),
        seed=result.seed,
    )


def _candidate(
    index: int, result: CandidateResult, tokenizer: Tokenizer, *, token_ids: bool, streamed: bool
) -> pb.Candidate:
    message = pb.Candidate(
        index=index,
        finish_reason=_FINISH_REASON[result.finish_reason],
        stop_string=result.stop_string,
        cumulative_logprob=result.cumulative_logprob,
        beam_score=result.beam_score,
    )
    if not streamed:
        message.text = result.text
        message.logprobs.extend(_positions(result.logprobs, tokenizer))
        if token_ids:
            message.token_ids.extend(result.token_ids)
    return message


def _positions(
    positions: Sequence[PositionLogprobs], tokenizer: Tokenizer
) -> Iterable[pb.PositionLogprobs]:
    return [
        pb.PositionLogprobs(
            chosen=_token(position.chosen, tokenizer),
            top=[_token(token, tokenizer) for token in position.top],
        )
        for position in positions
    ]


def _token(token: TokenLogprob, tokenizer: Tokenizer) -> pb.TokenLogprob:
    return pb.TokenLogprob(
        token_id=token.token_id, token=tokenizer.piece(token.token_id), logprob=token.logprob
    )


def _usage(usage: Usage) -> pb.Usage:
    return pb.Usage(**asdict(usage))


def _timing(timing: Timing) -> pb.Timing:
    return pb.Timing(
        queue_ms=timing.queue * 1e3,
        prefill_ms=timing.prefill * 1e3,
        decode_ms=timing.decode * 1e3,
        total_ms=timing.total * 1e3,
    )


def _struct(fields: dict[str, Any]) -> Struct:
    struct = Struct()
    struct.update(fields)
    return struct


def write_tokens(tokens: Iterable[Token]) -> pb.TokenizeResponse:
    """Return the response of `Tokenize`."""
    response = pb.TokenizeResponse()
    # One by one: protobuf would copy a list of messages with the interpreter lock held.
    for token in tokens:
        response.tokens.add(id=token.id, piece=token.piece, start=token.start, end=token.end)
    return response


def build_load_report(report: LoadReport) -> bytes:
    """Return a load report as ORCA's message, serialized."""
    return OrcaLoadReport(
        application_utilization=report.application_utilization,
        named_metrics=report.named_metrics,
    ).SerializeToString()
