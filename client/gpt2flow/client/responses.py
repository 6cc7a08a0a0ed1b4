"""Protobuf messages of responses, parsed into results."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields, replace

from google.protobuf import json_format

from gpt2flow.client.results import (
    Candidate,
    ContinuationScore,
    Delta,
    Generation,
    Model,
    ModelLimits,
    Scores,
    Timing,
    Token,
    TokenLogprob,
    Usage,
)
from gpt2flow.inference.v1 import inference_pb2 as pb


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
        tokenizer=message.tokenizer,
        eos_token_ids=tuple(message.eos_token_ids),
        constraint_error=message.constraint_error,
        stored_choices=tuple(message.stored_choices),
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
    return Usage(**{field.name: getattr(message, field.name) for field in fields(Usage)})


def _parse_timing(message: pb.Timing) -> Timing:
    return Timing(message.queue_ms, message.prefill_ms, message.decode_ms, message.total_ms)


def _parse_candidate(message: pb.Candidate) -> Candidate:
    return Candidate(
        index=message.index,
        text=message.text,
        token_ids=tuple(message.token_ids),
        finish_reason=_finish_reason(message.finish_reason),
        stop_string=message.stop_string,
        cumulative_logprob=(
            message.cumulative_logprob if message.HasField("cumulative_logprob") else None
        ),
        beam_score=message.beam_score,
        logprobs=_parse_logprobs(message.logprobs),
    )


def _finish_reason(value: int) -> str:
    """Return the name of a reason; an unknown one is a number."""
    name = pb.FinishReason.DESCRIPTOR.values_by_number.get(value)
    return f"reason {value}" if name is None else name.name.removeprefix("FINISH_REASON_").lower()


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
