"""Bad requests: errors name tensor or parameter, and what is allowed."""

from typing import Any

import grpc
import pytest
from tests.support.engine_bench import CONTEXT, SLOTS
from tests.support.open_inference import (
    TEXT,
    InputTensor,
    as_raw,
    greedy,
    outputs_of,
    request,
    responses,
    stub_of,
    tensor,
)
from tests.support.running_server import RunningServer, bad_fields, failure

from gpt2flow.inference.kserve.v2 import open_inference_pb2 as pb

pytestmark = pytest.mark.process

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
INTEGERS = "INT32 or INT64 or UINT32 or UINT64"


def raw(index: int, contents: bytes) -> pb.ModelInferRequest:
    """Return a raw request with one entry replaced."""
    message = as_raw(request(max_tokens=3))
    message.raw_input_contents[index] = contents
    return message


def with_shape(shape: list[int], **options: Any) -> pb.ModelInferRequest:
    """Return a request whose last input has another shape."""
    message = request(**options)
    message.inputs[-1].shape[:] = shape
    return message


def typed(datatype: str, **contents: Any) -> pb.ModelInferRequest:
    given = pb.InferTensorContents(**contents)
    return request(InputTensor(name="top_k", datatype=datatype, shape=[1], contents=given))


def with_parameter(name: str, **choice: Any) -> pb.ModelInferRequest:
    message = request()
    message.parameters[name].CopyFrom(pb.InferParameter(**choice))
    return message


def shared_memory() -> pb.ModelInferRequest:
    message = request()
    message.inputs[0].parameters["shared_memory_region"].string_param = "region"
    return message


def without_entry() -> pb.ModelInferRequest:
    message = as_raw(request(max_tokens=3))
    del message.raw_input_contents[1]
    return message


def both_contents() -> pb.ModelInferRequest:
    message = as_raw(request())
    message.inputs[0].contents.bytes_contents.append(b"x")
    return message


def ids(values: list[int], *shape: int, **options: Any) -> pb.ModelInferRequest:
    return request(tensor("input_ids", values, shape=shape), text=None, **options)


# Request, and the field and description of its error.
CASES: dict[str, tuple[pb.ModelInferRequest, str, str]] = {
    "no prompt": (request(text=None), "inputs.text_input", "is missing"),
    "both prompts": (request(tensor("input_ids", [1])), "inputs.text_input", "excludes input_ids"),
    "no elements": (
        request(tensor("text_input", [], "BYTES"), text=None),
        "inputs.text_input",
        "must have at least one",
    ),
    "unknown tensor": (request(tensor("temperatur", 1.0)), "inputs[1]", "is named 'temperatur'"),
    "unknown output": (request(outputs=["text"]), "outputs[0]", "is named 'text', must be one of"),
    "unknown parameter": (
        request(parameters={"priorty": 1}),
        "parameters",
        "'priorty' is no parameter",
    ),
    "prompt as parameter": (
        request(parameters={"text_input": "x"}),
        "parameters",
        "'text_input' must be an input tensor",
    ),
    "wrong type": (
        request(tensor("max_tokens", 5.0)),
        "inputs.max_tokens",
        f"is 'FP32', must be {INTEGERS}",
    ),
    "text of another type": (
        request(tensor("text_input", 5), text=None),
        "inputs.text_input",
        "is 'INT32', must be BYTES",
    ),
    "unknown type": (typed("FLOAT"), "inputs.top_k", "is 'FLOAT', must be"),
    "wrong shape": (
        request(tensor("max_tokens", [1, 2])),
        "inputs.max_tokens",
        "has shape [2], must have one element: [1] or [1, 1]",
    ),
    "negative size": (
        with_shape([-1], top_k=1),
        "inputs.top_k",
        "has shape [-1], must not have negative sizes",
    ),
    "huge shape": (
        with_shape([2**62, 2**62], stop=["x"]),
        "inputs.stop",
        "must be [n] or [n, 1]",
    ),
    "many dimensions": (with_shape([1] * 9, top_k=1), "inputs.top_k", "must have at most 8"),
    "prompts in two dimensions": (
        with_shape([2, 2], text=["a", "b", "c", "d"]),
        "inputs.text_input",
        "has shape [2, 2], must be [n] or [n, 1]",
    ),
    "ids in three dimensions": (ids([1], 1, 1, 1), "inputs.input_ids", "[prompts, tokens]"),
    "fewer elements": (
        with_shape([3], stop=["x"]),
        "inputs.stop",
        "has 1 elements, must have 3 for shape [3]",
    ),
    "contents of another type": (
        typed("INT32", int64_contents=[1]),
        "inputs.top_k",
        "has int64_contents, must have int_contents for INT32",
    ),
    "no contents": (typed("INT32"), "inputs.top_k", "has 0 elements, must have 1"),
    "long raw contents": (
        raw(1, b"12345"),
        "inputs.max_tokens",
        "has 5 bytes of raw contents, must have 4 for shape [1] of INT32",
    ),
    "no raw contents": (raw(0, b""), "inputs.text_input[0]", "ends after the 0 bytes"),
    "cut raw text": (raw(0, b"\x05\0\0\0abc"), "inputs.text_input[0]", "ends after the 7 bytes"),
    "rest of raw text": (raw(0, b"\x01\0\0\0abc"), "inputs.text_input", "its 1 elements take 5"),
    "missing raw entry": (without_entry(), "raw_input_contents", "has 1 entries, must have 2"),
    "raw and typed": (both_contents(), "raw_input_contents", "excludes contents in inputs"),
    "no UTF-8": (
        request(text=None, text_input=[b"fine", b"a\xff"]),
        "inputs.text_input[1]",
        "is not UTF-8 at byte 1",
    ),
    "same tensor twice": (
        request(tensor("n", 1), tensor("n", 1)),
        "inputs.n",
        "is given as inputs.n already",
    ),
    "tensor and parameter": (
        request(tensor("n", 1), parameters={"n": 1}),
        "parameters.n",
        "is given as inputs.n already",
    ),
    "alias": (
        request(tensor("stop", "a"), tensor("stop_words", "b")),
        "inputs.stop_words",
        "is given as inputs.stop already",
    ),
    "kind of a parameter": (
        with_parameter("max_tokens", string_param="5"),
        "parameters.max_tokens",
        "is string_param, must be int64_param or uint64_param",
    ),
    "fraction": (
        with_parameter("n", double_param=1.0),
        "parameters.n",
        "is double_param, must be int64_param or uint64_param",
    ),
    "parameter without a value": (
        with_parameter("stream"),
        "parameters.stream",
        "has no value, must be bool_param",
    ),
    "negative number": (
        request(tensor("max_tokens", -5)),
        "inputs.max_tokens",
        "is -5, must be in [1, 4294967295]",
    ),
    "negative parameter": (
        request(parameters={"seed": -1}),
        "parameters.seed",
        "is -1, must be in [0, 18446744073709551615]",
    ),
    "shared memory": (
        shared_memory(),
        "inputs.text_input.parameters",
        "has 'shared_memory_region'",
    ),
    "more than slots": (
        request(n=SLOTS + 1),
        "inputs.n",
        f"must be in [1, {SLOTS}]",
    ),
    "beams beyond slots": (
        request(parameters={"beam_width": SLOTS + 1}),
        "parameters.beam_width",
        "must be in [1,",
    ),
    "temperature": (request(temperature=-1.0), "inputs.temperature", "must be in [0, 100]"),
    "not a number": (request(top_p=float("nan")), "inputs.top_p", "must be in (0, 1]"),
    "infinite": (
        request(parameters={"repetition_penalty": float("inf")}),
        "parameters.repetition_penalty",
        "must be positive",
    ),
    "infinite in beam search": (
        request(beam_width=2, repetition_penalty=float("inf")),
        "inputs.repetition_penalty",
        "must be positive",
    ),
    "context": (greedy(CONTEXT), "inputs.max_tokens", f"the model's context of {CONTEXT} tokens"),
    "empty stop string": (request(stop=["a", ""]), "inputs.stop[1]", "must not be empty"),
    "many stop strings": (request(stop=["a"] * 33), "inputs.stop", "must have at most 32"),
    "many prompts": (request(text=["a"] * 257), "inputs.text_input", "must have at most 256"),
    "many rows": (ids([1] * 257, 257, 1), "inputs.input_ids", "has 257 rows"),
    "token without entry": (ids([1, 99_999], 2), "inputs.input_ids[0]", "vocabulary size"),
    "negative token": (ids([-1], 1), "inputs.input_ids[0]", "is -1, must be in [0,"),
    "lengths": (
        ids([1, 2], 2, 1, input_lengths=[1]),
        "inputs.input_lengths",
        "has 1 elements, must have 2",
    ),
    "length beyond": (
        ids([1, 2], 2, 1, input_lengths=[1, 2]),
        "inputs.input_lengths[1]",
        "is 2, must be in [1, 1]",
    ),
    "literal ids": (ids([1], 1, literal=True), "inputs.input_ids[0].literal", "is for text"),
    "sampling and beams": (
        request(beam_width=2, temperature=0.5),
        "inputs.temperature",
        "is for sampling, not for beam search",
    ),
    "seed of beams": (
        request(beam_width=2, seed=0),
        "inputs.seed",
        "is for sampling, not for beam search",
    ),
    "beams and none": (
        request(length_penalty=0.5),
        "inputs.length_penalty",
        "needs beam_width of at least 2",
    ),
    "two constraints": (request(regex="a", lark="b"), "inputs.lark", "excludes inputs.regex"),
    "schema without a value": (
        request(json_schema='{"type": "nothing"}'),
        "inputs.json_schema",
        "",
    ),
    "schema as parameter": (
        request(parameters={"json_schema": "{"}),
        "parameters.json_schema",
        "",
    ),
    "equal choices": (request(choices=["a", "a"]), "inputs.choices", "same text twice"),
    "unknown list": (request(stored_choices="none"), "inputs.stored_choices", ""),
    "no JSON": (request(sampling_parameters="{"), "inputs.sampling_parameters", "is no JSON"),
    "deep JSON": (
        request(sampling_parameters="[" * 60_000),
        "inputs.sampling_parameters",
        "is no JSON",
    ),
    "long JSON": (
        request(sampling_parameters=" " * 70_000),
        "inputs.sampling_parameters",
        "must have at most 65536",
    ),
    "JSON list": (request(sampling_parameters="[]"), "inputs.sampling_parameters", "JSON object"),
    "option in JSON": (
        request(sampling_parameters='{"tempo": 1}'),
        "inputs.sampling_parameters",
        "has the unknown option 'tempo'",
    ),
    "value in JSON": (
        request(sampling_parameters='{"top_k": 1.5}'),
        "inputs.sampling_parameters.top_k",
        "is float, must be int or str",
    ),
    "word in JSON": (
        request(sampling_parameters='{"top_k": "many"}'),
        "inputs.sampling_parameters.top_k",
        "is 'many', no number",
    ),
    "large number in JSON": (
        request(sampling_parameters='{"top_p": 1%s}' % ("0" * 400)),
        "inputs.sampling_parameters.top_p",
        "is too large",
    ),
    "stream": (request(stream=True), "inputs.stream", "is true, which needs ModelStreamInfer"),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_bad_request_names_its_field(running: RunningServer, case: str) -> None:
    message, field, description = CASES[case]
    code, text, detail = await failure(stub_of(running.channel).ModelInfer(message))
    assert code is INVALID, text
    assert bad_fields(detail)[0] == field
    assert description in text
    assert "options." not in text


async def test_every_bad_field_is_named(running: RunningServer) -> None:
    message = request(tensor("max_tokens", 5.0), top_k=-1, outputs=["nothing"])
    message.parameters["seed"].bool_param = True
    _, _, detail = await failure(stub_of(running.channel).ModelInfer(message))
    assert set(bad_fields(detail)) == {
        "outputs[0]",
        "inputs.max_tokens",
        "inputs.top_k",
        "parameters.seed",
    }


@pytest.mark.parametrize("rpc", ["ModelInfer", "ModelMetadata", "ModelConfig"])
@pytest.mark.parametrize(
    "name,version,message",
    [
        ("none", "", "no model named 'none'; loaded: first, second"),
        ("first", "2", "model 'first' has no version '2'; versions: 1"),
    ],
)
async def test_unknown_models_and_versions_are_not_found(
    running: RunningServer, rpc: str, name: str, version: str, message: str
) -> None:
    given = request(model=name)
    given.model_version = version
    messages = {
        "ModelInfer": given,
        "ModelMetadata": pb.ModelMetadataRequest(name=name, version=version),
        "ModelConfig": pb.ModelConfigRequest(name=name, version=version),
    }
    call = getattr(stub_of(running.channel), rpc)(messages[rpc])
    assert (await failure(call))[:2] == (NOT_FOUND, message)
    ready = pb.ModelReadyRequest(name=name, version=version)
    assert not (await stub_of(running.channel).ModelReady(ready)).ready


async def test_bytes_that_are_no_message_are_refused(running: RunningServer) -> None:
    path = "/inference.GRPCInferenceService/"
    code, text, _ = await failure(running.channel.unary_unary(f"{path}ModelInfer")(b"\xff" * 9))
    assert (code, text) == (INVALID, "the bytes are not a message of the RPC's type")
    stream = running.channel.stream_stream(
        f"{path}ModelStreamInfer", response_deserializer=pb.ModelStreamInferResponse.FromString
    )
    messages = [b"\xff" * 9, greedy(3).SerializeToString()]
    answers = [each async for each in stream(iter(messages))]
    errors = [each.error_message for each in answers if each.error_message]
    assert errors == ["INVALID_ARGUMENT: the bytes are no ModelInferRequest"]
    assert outputs_of(answers[-1].infer_response)["num_output_tokens"] == [3]


async def test_an_unknown_rpc_is_unimplemented(running: RunningServer) -> None:
    path = "/inference.GRPCInferenceService/SystemSharedMemoryStatus"
    code, _, _ = await failure(running.channel.unary_unary(path)(b""))
    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_errors_of_a_stream_end_their_requests_alone(running: RunningServer) -> None:
    bad = [CASES[case][0] for case in ("no prompt", "wrong type", "more than slots", "context")]
    messages = [*bad, request(text=["a", "b"]), request(model="none"), greedy(3, text=TEXT)]
    for number, message in enumerate(messages):
        message.id = str(number)
    answers = await responses(stub_of(running.channel), *messages)
    errors = {each.infer_response.id: each.error_message for each in answers if each.error_message}
    assert errors["0"].startswith("INVALID_ARGUMENT: inputs.text_input: is missing")
    assert errors["1"].startswith("INVALID_ARGUMENT: inputs.max_tokens: is 'FP32'")
    assert errors["2"].startswith("INVALID_ARGUMENT: inputs.n: must be in")
    assert errors["3"].startswith("INVALID_ARGUMENT: inputs.max_tokens: prompt (")
    assert "one prompt; or set stream to false" in errors["4"]
    assert errors["5"] == "NOT_FOUND: no model named 'none'; loaded: first, second"
    assert len(errors) == 6
    assert answers[-1].infer_response.id == "6"
