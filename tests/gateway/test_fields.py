"""Fields of requests: types, unknown names, paths of errors."""

import json
from typing import Any

import pytest

from gpt2flow.gateway.errors import ApiError
from gpt2flow.gateway.fields.chat import ChatRequest
from gpt2flow.gateway.fields.completion import CompletionRequest
from gpt2flow.gateway.fields.generation import EXTRA, IGNORED, REFUSED
from gpt2flow.gateway.fields.parsing import parse_fields


def completion(**fields: Any) -> CompletionRequest:
    body = {"model": "m", "prompt": "p", **fields}
    return parse_fields(CompletionRequest, json.dumps(body).encode())


def chat(**fields: Any) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return parse_fields(ChatRequest, json.dumps(body).encode())


@pytest.mark.parametrize(
    "prompt, prompts",
    [
        ("text", ["text"]),
        (["one", "two"], ["one", "two"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ("", [""]),
    ],
)
def test_a_prompt_has_four_forms(prompt: Any, prompts: Any) -> None:
    assert completion(prompt=prompt).prompts == prompts


@pytest.mark.parametrize("name", sorted(set(CompletionRequest.model_fields) - {"model", "prompt"}))
def test_null_is_the_same_as_absent(name: str) -> None:
    assert completion(**{name: None}) == completion()


@pytest.mark.parametrize(
    "fields, param, words",
    [
        ({"prompt": []}, "prompt", "must be text, a list of texts"),
        ({"prompt": 5}, "prompt", "must be text, a list of texts"),
        ({"prompt": ["a", 1]}, "prompt[1]", "valid string, not 1"),
        ({"prompt": [1, "a"]}, "prompt[1]", "valid integer, not 'a'"),
        ({"prompt": [[1], [-1]]}, "prompt[1][0]", "greater than or equal to 0"),
        ({"prompt": [2**32]}, "prompt[0]", "less than or equal to"),
        ({"temperature": "hot"}, "temperature", "valid number, not 'hot'"),
        ({"temperature": True}, "temperature", "valid number, not True"),
        ({"max_tokens": 1.5}, "max_tokens", "valid integer, not 1.5"),
        ({"max_tokens": -1}, "max_tokens", "not -1"),
        ({"n": 0}, "n", "greater than or equal to 1, not 0"),
        ({"stop": ["a", 2]}, "stop[1]", "valid string, not 2"),
        ({"stop": 3}, "stop", "valid array, not 3"),
        ({"seed": 2**64}, "seed", "less than 18446744073709551616"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "key 'x' is no token id"),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias", "is no token id"),
        ({"logit_bias": {"1": "a"}}, "logit_bias.1", "valid number, not 'a'"),
        ({"stream_options": {"usage": True}}, "stream_options.usage", "unknown field"),
        ({"early_stopping": "always"}, "early_stopping", "'never'"),
        ({"json_schema": [1]}, "json_schema", "an object"),
        ({"logprobs": True}, "logprobs", "valid integer, not True"),
        ({"model": ""}, "model", "at least 1 character"),
        ({"model": None}, "model", "valid string, not None"),
        ({"temperatur": 1}, "temperatur", "unknown field; did you mean temperature?"),
        ({"xyzzy": 1}, "xyzzy", "unknown field"),
        ({"suffix": "end"}, "suffix", "is not supported: the models cannot insert text"),
    ],
)
def test_an_error_names_path_rule_and_value(fields: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(ApiError) as caught:
        completion(**fields)
    error = caught.value
    assert (error.status, error.param) == (400, param)
    assert error.message.startswith(f"{param}: ")
    assert words in error.message


@pytest.mark.parametrize(
    "fields, param, words",
    [
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": ["hi"]}, "messages[0]", "an object with one of the roles assistant"),
        ({"messages": [{"role": "usr", "content": ""}]}, "messages[0]", "roles assistant"),
        ({"messages": [{"role": ["user"]}]}, "messages[0]", "roles assistant"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "is missing"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "text": ""}]}]},
            "messages[0].content[0].type",
            "'text', not 'image'",
        ),
        (
            {"messages": [{"role": "tool", "content": ""}]},
            "messages[0].tool_call_id",
            "is missing",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            "tools[0].function.name",
            "pattern",
        ),
        ({"tool_choice": "some"}, "tool_choice", "'none', 'auto' or 'required', not 'some'"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function", "is missing"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "'text', not 'xml'"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": 1}}},
            "response_format.json_schema.schema",
            "an object, not 1",
        ),
        ({"functions": []}, "functions", "is not supported: was replaced by tools"),
        ({"modalities": ["audio"]}, "modalities[0]", "'text', not 'audio'"),
        ({"prompt": "p"}, "prompt", "unknown field"),
    ],
)
def test_an_error_of_a_chat_names_the_path(fields: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(ApiError) as caught:
        chat(**fields)
    assert caught.value.param == param
    assert words in caught.value.message


@pytest.mark.parametrize(
    "body, words",
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"[]", "the body is not a JSON object"),
        (b'"text"', "the body is not a JSON object"),
        (b'{"model": "\xff"}', "the body is not JSON"),
        (b'{"model": "\\ud800"}', "the body is not JSON"),
        (b'{"a":' * 100_000, "the body is not JSON"),
    ],
)
def test_a_body_that_is_no_object_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_fields(CompletionRequest, body)
    assert (caught.value.status, caught.value.param) == (400, None)
    assert words in caught.value.message


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999"])
def test_a_number_must_be_finite(text: str) -> None:
    body = f'{{"model": "m", "prompt": "p", "temperature": {text}}}'
    with pytest.raises(ApiError) as caught:
        parse_fields(CompletionRequest, body.encode())
    assert caught.value.param == "temperature"


def test_the_value_of_an_error_is_cut() -> None:
    with pytest.raises(ApiError) as caught:
        completion(n="9" * 10_000)
    assert len(caught.value.message) < 200


def test_every_field_has_one_treatment() -> None:
    known = set(CompletionRequest.model_fields) | set(ChatRequest.model_fields)
    treatments = [EXTRA, IGNORED, set(REFUSED)]
    assert set().union(*treatments) <= known
    assert sum(map(len, treatments)) == len(set().union(*treatments))
