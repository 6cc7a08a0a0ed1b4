"""Tests of requests built by server reflection alone."""

import json

import grpc
import pytest
from google.protobuf.json_format import ParseError
from tests.support.reflection_client import Reflected

SERVICE = "gpt2flow.inference.v1.InferenceService"
REQUEST = {
    "prompt": {"text": "<|state|>guest<|user|>two umbrellas please<|act|>"},
    "options": {"sampling": {"temperature": 0}, "stopping": {"maxNewTokens": 24}},
}


@pytest.fixture
def reflected(channel: grpc.Channel) -> Reflected:
    return Reflected(channel)


def test_a_stream_matches_the_unary_text(reflected: Reflected) -> None:
    *deltas, last = reflected.call(f"{SERVICE}/GenerateStream", json.dumps(REQUEST))
    assert len(deltas) > 1
    text = "".join(message["delta"]["text"] for message in deltas)
    one = {"prompts": [REQUEST["prompt"]], "options": REQUEST["options"]}
    [response] = reflected.call(f"{SERVICE}/Generate", json.dumps(one))
    assert text == response["results"][0]["candidates"][0]["text"]
    assert last["end"]["result"]["usage"]["completionTokens"] > 1


def test_every_service_is_described(reflected: Reflected) -> None:
    assert reflected.services() == {
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    }
    assert reflected.describe(SERVICE) == "gpt2flow/inference/v1/inference.proto"


def test_an_unknown_field_is_rejected(reflected: Reflected) -> None:
    with pytest.raises(ParseError, match="no field named"):
        list(reflected.call(f"{SERVICE}/Generate", '{"promt": "x"}'))


def test_struct_fields_are_returned(reflected: Reflected) -> None:
    [response] = reflected.call(f"{SERVICE}/GetModel")
    assert response["model"]["quality"]["perplexity"] > 0
