"""Responses of a request: results and chunks as tensors."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from gpt2flow.inference.kserve.v2 import open_inference_pb2 as pb
from gpt2flow.server.engine.results import (
    CandidateResult,
    Delta,
    GenerationResult,
    PositionLogprobs,
)
from gpt2flow.server.kserve.fields import OUTPUTS
from gpt2flow.server.kserve.requests import InferRequest
from gpt2flow.server.kserve.tensors import Tensor, write_tensors

# The only version of each model.
VERSION: Final = "1"
_FINAL: Final = "triton_final_response"
# Fills the rows of outputs per token, whose lengths differ.
_PADDING: Final = {"output_ids": -1, "output_log_probs": 0.0}

_Row = Mapping[str, Any]


def write_whole(
    results: Iterable[GenerationResult], request: InferRequest, model: str
) -> pb.ModelInferResponse:
    """Return a response with a row for each candidate of each prompt."""
    rows = [
        _whole(result, index, candidate)
        for result in results
        for index, candidate in enumerate(result.candidates)
    ]
    return _response(rows, request, model)


def write_chunk(delta: Delta, request: InferRequest, model: str) -> pb.ModelInferResponse | None:
    """Return the response with one chunk; None without a requested output."""
    row = {
        "text_output": delta.text,
        "output_ids": delta.token_ids,
        "output_log_probs": _logprobs(delta.logprobs),
        "sequence_index": delta.index,
    }
    if not request.outputs & (row.keys() - {"sequence_index"}):
        return None
    response = _response([row], request, model)
    response.parameters[_FINAL].bool_param = False
    return response


def write_end(result: GenerationResult, request: InferRequest, model: str) -> pb.ModelInferResponse:
    """Return the last response of a stream, without what was streamed."""
    rows = [_whole(result, index, each) for index, each in enumerate(result.candidates)]
    if not request.beams:
        streamed = {"text_output": "", "output_ids": (), "output_log_probs": ()}
        rows = [{**row, **streamed} for row in rows]
    return final(_response(rows, request, model))


def final(response: pb.ModelInferResponse) -> pb.ModelInferResponse:
    """Mark a response of a stream as its request's last."""
    response.parameters[_FINAL].bool_param = True
    return response


def write_error(request_id: str, message: str) -> pb.ModelStreamInferResponse:
    """Return the error of one request of a stream."""
    response = final(pb.ModelInferResponse(id=request_id))
    return pb.ModelStreamInferResponse(error_message=message, infer_response=response)


def _whole(result: GenerationResult, index: int, candidate: CandidateResult) -> _Row:
    logprob = candidate.cumulative_logprob
    return {
        "text_output": candidate.text,
        "output_ids": candidate.token_ids,
        "output_log_probs": _logprobs(candidate.logprobs),
        "sequence_index": index,
        "finish_reason": candidate.finish_reason.value,
        "num_input_tokens": result.usage.prompt_tokens,
        "num_cached_tokens": result.usage.cached_tokens,
        "num_output_tokens": len(candidate.token_ids),
        "cumulative_logprob": 0.0 if logprob is None else logprob,
        "beam_score": candidate.beam_score,
    }


def _logprobs(positions: Sequence[PositionLogprobs]) -> list[float]:
    return [each.chosen.logprob or 0.0 for each in positions]


def _response(rows: Sequence[_Row], request: InferRequest, model: str) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(model_name=model, model_version=VERSION, id=request.id)
    names = [name for name in OUTPUTS if name in request.outputs and name in rows[0]]
    write_tensors(response, [_column(name, rows) for name in names], raw=request.raw)
    return response


def _column(name: str, rows: Sequence[_Row]) -> Tensor:
    """Return one output of all rows."""
    field, values = OUTPUTS[name], [row[name] for row in rows]
    if not field.per_token:
        return Tensor(name, field.datatype, (len(rows),), values)
    width = max(map(len, values))
    padding = _PADDING[name]
    elements = [element for each in values for element in (*each, *[padding] * (width - len(each)))]
    return Tensor(name, field.datatype, (len(rows), width), elements)
