"""Random requests of KServe's protocol: each error names its fault."""

import re
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.fault_client import assert_nothing_left, canary
from tests.support.open_inference import stub_of
from tests.support.server_process import ServerProcess
from tests.support.waiting import SECONDS

from gpt2flow.inference.kserve.v2 import open_inference_pb2 as pb
from gpt2flow.server.kserve.fields import INPUTS, OUTPUTS, PARAMETERS

_Request = pb.ModelInferRequest
# Fields of the protocol, and the names of tensors and parameters below them.
_FIELD = re.compile(
    r"(inputs|parameters)(\.\w+)*(\[\d+\](\.\w+)*)?|(inputs|outputs)\[\d+\].*|raw_.*"
)

_TEXTS = st.sampled_from(
    ["", "cup", "我想买", "\x00", '{"top_k": 3}', "[ab]{2}", "start: /a/", "("]
)
_NUMBERS = st.sampled_from([0, 1, 2, 3, 7, -1, 96, 2**31 - 1])
_REALS = st.sampled_from([0.0, 0.5, 1.0, -1.0, 3e38, float("inf"), float("nan")])
_CONTENTS: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "BYTES": ("bytes_contents", st.one_of(_TEXTS.map(str.encode), st.binary(max_size=4))),
    "INT32": ("int_contents", _NUMBERS),
    "INT64": ("int64_contents", _NUMBERS),
    "UINT64": ("uint64_contents", st.integers(0, 2**64 - 1)),
    "FP32": ("fp32_contents", _REALS),
    "BOOL": ("bool_contents", st.booleans()),
    "FP16": ("fp32_contents", _REALS),
}
_SHAPES = st.one_of(
    st.sampled_from([[1], [1], [1], [1, 1], [2], [3], [2, 1], [1, 3]]),
    st.lists(st.sampled_from([0, 1, 2, -1, 2**40, 2**62]), max_size=3),
)


@st.composite
def tensors(draw: st.DrawFn, name: str) -> _Request.InferInputTensor:
    """Return an input, whose datatype, shape and contents often agree."""
    field = INPUTS.get(name)
    right = field is not None and draw(st.integers(0, 9)) > 0
    datatype = field.kind.value[0] if field and right else draw(st.sampled_from(sorted(_CONTENTS)))
    shape = draw(_SHAPES)
    kind, elements = _CONTENTS[datatype]
    count = shape[0] * (shape[1] if len(shape) > 1 else 1) if shape else 1
    size = count if 0 <= count <= 6 and draw(st.integers(0, 9)) else draw(st.integers(0, 3))
    values = draw(st.lists(elements, min_size=size, max_size=size))
    contents = pb.InferTensorContents(**{kind: values})
    return _Request.InferInputTensor(name=name, datatype=datatype, shape=shape, contents=contents)


_PARAMETERS = st.one_of(
    _NUMBERS.map(lambda value: pb.InferParameter(int64_param=value)),
    _REALS.map(lambda value: pb.InferParameter(double_param=value)),
    _TEXTS.map(lambda value: pb.InferParameter(string_param=value)),
    st.booleans().map(lambda value: pb.InferParameter(bool_param=value)),
    st.just(pb.InferParameter()),
)


@st.composite
def infer_requests(draw: st.DrawFn) -> _Request:
    """Return a request, by default of one token."""
    names = draw(st.lists(st.sampled_from([*INPUTS, "other"]), max_size=3, unique=True))
    prompt = [draw(st.sampled_from(["text_input", "text_input", "input_ids"]))]
    message = _Request(
        model_name=draw(st.sampled_from(["", "m", "m", "other"])),
        model_version=draw(st.sampled_from(["", "", "", "1", "2"])),
        inputs=[draw(tensors(name)) for name in dict.fromkeys([*prompt, *names])],
        outputs=[
            _Request.InferRequestedOutputTensor(name=name)
            for name in draw(st.lists(st.sampled_from([*OUTPUTS, *OUTPUTS, "other"]), max_size=3))
        ],
    )
    if "max_tokens" not in names:
        message.parameters["max_tokens"].int64_param = 1
    for name in draw(st.lists(st.sampled_from([*PARAMETERS, "other"]), max_size=2)):
        message.parameters[name].CopyFrom(draw(_PARAMETERS))
    if draw(st.integers(0, 4)) == 0:
        raw = st.lists(st.binary(max_size=9), max_size=len(message.inputs) + 1)
        message.raw_input_contents.extend(draw(raw))
        for each in message.inputs:
            each.ClearField("contents")
    return message


def outcome(call: Any) -> tuple[str, str]:
    """Return status and text of a call, with checked details."""
    try:
        call()
    except grpc.RpcError as error:
        failed: Any = error
        code, text = failed.code(), failed.details()
        if code is grpc.StatusCode.INVALID_ARGUMENT:
            status, detail = rpc_status.from_call(failed), BadRequest()
            assert status is not None
            assert status.details[0].Unpack(detail)
            for violation in detail.field_violations:
                assert _FIELD.fullmatch(violation.field), text
                assert violation.description
        return code.name, text
    return "OK", ""


@pytest.mark.process
def test_random_requests_end_with_a_status_of_the_contract(server: ServerProcess) -> None:
    answer, before = canary(server.address), server.baseline()
    seen: set[str] = set()
    allowed = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "DEADLINE_EXCEEDED"}
    with grpc.insecure_channel(server.address) as channel:
        stub = stub_of(channel)

        @settings(
            max_examples=300,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(infer_requests())
        def check(message: _Request) -> None:
            code, text = outcome(lambda: stub.ModelInfer(message, timeout=SECONDS))
            seen.add(code)
            assert code in allowed, (message, text)
            assert "options." not in text
            answers = list(stub.ModelStreamInfer(iter([message]), timeout=SECONDS))
            assert answers[-1].infer_response.parameters["triton_final_response"].bool_param
            refused = answers[-1].error_message
            if code == "NOT_FOUND" or (code == "INVALID_ARGUMENT" and "needs Model" not in text):
                # The server cuts long texts.
                assert refused.removesuffix("…").startswith(f"{code}: {text[:200]}"), message

        check()
    assert seen >= {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}
    assert not server.events("internal_error", "engine_failed")
    assert_nothing_left(server, before)
    assert canary(server.address) == answer
