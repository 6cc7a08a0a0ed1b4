"""Requests and responses of KServe's protocol, and a stub."""

import struct
from collections.abc import Iterable
from typing import Any

import grpc

from gpt2flow.inference.kserve.v2 import open_inference_pb2 as pb
from gpt2flow.inference.kserve.v2.open_inference_pb2_grpc import GRPCInferenceServiceStub

TEXT = "Where is my order?"
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_FORMATS = {"BOOL": "?", "INT32": "i", "INT64": "q", "UINT64": "Q", "FP32": "f", "FP64": "d"}
_DATATYPES = {bool: "BOOL", int: "INT32", float: "FP32", str: "BYTES", bytes: "BYTES"}

InputTensor = pb.ModelInferRequest.InferInputTensor
OutputTensor = pb.ModelInferResponse.InferOutputTensor


def stub_of(channel: Any) -> Any:
    """Return the stub of the service on a channel."""
    return GRPCInferenceServiceStub(channel)


def tensor(
    name: str, value: Any, datatype: str | None = None, shape: Iterable[int] | None = None
) -> InputTensor:
    """Return an input with typed contents.

    Args:
        name: Name of the input.
        value: Its one element, or a list of them.
        datatype: Its datatype; by default that of the first element.
        shape: Its shape; by default one dimension.
    """
    elements = value if isinstance(value, list) else [value]
    datatype = datatype or _DATATYPES[type(elements[0])]
    if datatype == "BYTES":
        elements = [each.encode() if isinstance(each, str) else each for each in elements]
    contents = pb.InferTensorContents(**{_CONTENTS[datatype]: elements})
    shape = [len(elements)] if shape is None else shape
    return InputTensor(name=name, datatype=datatype, shape=shape, contents=contents)


def request(
    *tensors: InputTensor,
    text: str | list[str] | None = TEXT,
    outputs: Iterable[str] = (),
    parameters: dict[str, Any] | None = None,
    model: str = "",
    **options: Any,
) -> pb.ModelInferRequest:
    """Return a request with typed contents.

    Args:
        tensors: Inputs.
        text: The input `text_input`; None leaves it out.
        outputs: Names of the requested outputs.
        parameters: Parameters by name.
        model: Name of the model.
        options: Further inputs by name.
    """
    prompts = [] if text is None else [tensor("text_input", text)]
    message = pb.ModelInferRequest(
        model_name=model,
        inputs=[*prompts, *tensors, *(tensor(*each) for each in options.items())],
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs],
    )
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    for name, value in (parameters or {}).items():
        setattr(message.parameters[name], kinds[type(value)], value)
    return message


def greedy(max_tokens: int, *tensors: InputTensor, **fields: Any) -> pb.ModelInferRequest:
    """Return a request for exactly `max_tokens` tokens, decoded greedily."""
    options = {"max_tokens": max_tokens, "temperature": 0.0, "ignore_eos": True}
    return request(*tensors, **options | fields)


def as_raw(message: pb.ModelInferRequest) -> pb.ModelInferRequest:
    """Return a request with its contents raw."""
    raw = pb.ModelInferRequest()
    raw.CopyFrom(message)
    for each in raw.inputs:
        elements = getattr(each.contents, _CONTENTS[each.datatype])
        raw.raw_input_contents.append(_packed(each.datatype, elements))
        each.ClearField("contents")
    return raw


def _packed(datatype: str, elements: Iterable[Any]) -> bytes:
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(each)) + each for each in elements)
    return b"".join(struct.pack(f"<{_FORMATS[datatype]}", each) for each in elements)


def outputs_of(response: pb.ModelInferResponse) -> dict[str, list[Any]]:
    """Return the elements of the outputs, raw or typed, by name.

    Outputs with two dimensions are lists of rows.
    """
    found = {}
    for index, output in enumerate(response.outputs):
        if response.raw_output_contents:
            elements = _unpacked(output.datatype, response.raw_output_contents[index])
        else:
            elements = list(getattr(output.contents, _CONTENTS[output.datatype]))
        if output.datatype == "BYTES":
            elements = [each.decode() for each in elements]
        if len(output.shape) == 2:
            rows, width = output.shape
            elements = [elements[row * width : (row + 1) * width] for row in range(rows)]
        assert len(elements) == output.shape[0]
        found[output.name] = elements
    return found


def _unpacked(datatype: str, raw: bytes) -> list[Any]:
    if datatype != "BYTES":
        return [each for (each,) in struct.iter_unpack(f"<{_FORMATS[datatype]}", raw)]
    elements = []
    while raw:
        end = 4 + struct.unpack("<I", raw[:4])[0]
        elements.append(raw[4:end])
        raw = raw[end:]
    return elements


async def responses(stub: Any, *messages: pb.ModelInferRequest) -> list[Any]:
    """Return all responses of a stream, whose requests are sent at once."""
    call = stub.ModelStreamInfer(iter(messages))
    return [response async for response in call]


async def rest_of(call: Any) -> list[Any]:
    """Return the responses that a stream has not read."""
    found = []
    while (response := await call.read()) is not grpc.aio.EOF:
        found.append(response)
    return found


def is_final(response: pb.ModelStreamInferResponse) -> bool:
    """Return whether a response of a stream is its request's last."""
    return response.infer_response.parameters["triton_final_response"].bool_param


async def status(call: Any) -> tuple[grpc.StatusCode, str]:
    """Return code and message of a unary call."""
    return await call.code(), await call.details()
