"""Plans: options of the client, and names of the request's fields."""

import json
from typing import Any

import grpc
import pytest

from gpt2flow.client import (
    BeamSearch,
    Choices,
    InvalidRequestError,
    JsonSchema,
    Lark,
    Options,
    Regex,
    Sampling,
    StoredChoices,
    Text,
    Violation,
)
from gpt2flow.gateway.answers.failures import to_api_error
from gpt2flow.gateway.errors import ApiError
from gpt2flow.gateway.fields.chat import ChatRequest
from gpt2flow.gateway.fields.completion import CompletionRequest
from gpt2flow.gateway.fields.parsing import parse_fields
from gpt2flow.gateway.plan.chat import plan_chat
from gpt2flow.gateway.plan.completions import DEFAULT_MAX_TOKENS, plan_completion
from gpt2flow.gateway.plan.plan import Plan


def plan(**fields: Any) -> Plan:
    body = {"model": "m", "prompt": "p", **fields}
    return plan_completion(parse_fields(CompletionRequest, json.dumps(body).encode()))


def chat_plan(**fields: Any) -> Plan:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return plan_chat(parse_fields(ChatRequest, json.dumps(body).encode()), "rendered", None)


def refused(**fields: Any) -> tuple[str | None, str]:
    with pytest.raises(ApiError) as caught:
        plan(**fields)
    assert caught.value.status == 400
    return caught.value.param, caught.value.message


def test_fields_become_the_options_of_the_client() -> None:
    made = plan(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        typical_p=0.8,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        repetition_penalty=1.5,
        no_repeat_ngram_size=3,
        logit_bias={"5": -100, "7": 1.5},
        bad_words=["x"],
        seed=7,
        n=2,
        max_tokens=9,
        min_tokens=2,
        stop=["a", "b"],
        stop_token_ids=[3],
        include_stop_string=True,
        ignore_eos=True,
        time_limit_ms=50,
        return_partial_on_time_limit=True,
        truncate_prompt=True,
        priority=-4,
        logprobs=3,
        echo=True,
        token_ids=True,
        include_special_tokens=True,
        regex="[ab]+",
    )
    assert made.options == Options(
        decoding=Sampling(
            temperature=0.5,
            top_p=0.9,
            top_k=40,
            min_p=0.1,
            typical_p=0.8,
            presence_penalty=0.5,
            frequency_penalty=-0.5,
            repetition_penalty=1.5,
            no_repeat_ngram_size=3,
            logit_bias=((5, -100.0), (7, 1.5)),
            bad_words=("x",),
            seed=7,
            n=2,
        ),
        max_new_tokens=9,
        min_new_tokens=2,
        stop_strings=("a", "b"),
        stop_token_ids=(3,),
        include_stop_string=True,
        ignore_eos=True,
        time_limit_ms=50,
        return_partial_on_time_limit=True,
        truncate_prompt=True,
        priority=-4,
        logprobs=True,
        top_logprobs=3,
        prompt_logprobs=True,
        echo=True,
        token_ids=True,
        include_special_tokens=True,
        constraint=Regex("[ab]+"),
    )


def test_a_bare_request_has_the_defaults_of_the_server() -> None:
    assert plan().options == Options(max_new_tokens=DEFAULT_MAX_TOKENS)
    assert chat_plan().options == Options()


@pytest.mark.parametrize("seed, sent", [(5, 5), (-1, 2**64 - 1), (2**64 - 1, 2**64 - 1)])
def test_a_negative_seed_is_64_bits_too(seed: int, sent: int) -> None:
    decoding = plan(seed=seed).options.decoding
    assert isinstance(decoding, Sampling)
    assert decoding.seed == sent


def test_best_of_above_n_is_a_beam_search() -> None:
    made = plan(n=2, best_of=5, logit_bias={"1": 2}, repetition_penalty=1.5, temperature=0)
    assert made.options.decoding == BeamSearch(
        num_beams=5, num_return_sequences=2, logit_bias=((1, 2.0),), repetition_penalty=1.5
    )
    assert made.is_whole


@pytest.mark.parametrize("fields", [{"best_of": 1}, {"n": 3, "best_of": 3}])
def test_best_of_that_equals_n_draws(fields: dict[str, Any]) -> None:
    assert isinstance(plan(**fields).options.decoding, Sampling)


def test_num_beams_is_a_beam_search_with_all_its_fields() -> None:
    made = plan(num_beams=4, best_of=1, length_penalty=0.5, early_stopping="never")
    assert made.options.decoding == BeamSearch(
        num_beams=4, num_return_sequences=1, length_penalty=0.5, early_stopping="never"
    )


@pytest.mark.parametrize(
    "fields, param",
    [
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"best_of": 3, "num_beams": 4}, "best_of"),
        ({"num_beams": 3, "temperature": 0.7}, "temperature"),
        ({"best_of": 3, "top_p": 0.5}, "top_p"),
        ({"best_of": 3, "top_k": 5}, "top_k"),
        ({"best_of": 3, "min_p": 0.1}, "min_p"),
        ({"best_of": 3, "typical_p": 0.5}, "typical_p"),
        ({"best_of": 3, "presence_penalty": 1}, "presence_penalty"),
        ({"best_of": 3, "frequency_penalty": 1}, "frequency_penalty"),
        ({"length_penalty": 1}, "length_penalty"),
        ({"early_stopping": False}, "early_stopping"),
        ({"regex": "a", "choices": ["a"]}, "choices"),
        ({"regex": "a", "json_schema": {}, "lark": "start: /a/"}, "regex"),
        ({"prompt": [1], "literal": True}, "literal"),
        ({"prompt": [1], "add_special_tokens": False}, "add_special_tokens"),
        ({"prompt": ["a"] * 65, "stream": True}, "prompt"),
    ],
)
def test_fields_that_contradict_are_refused(fields: dict[str, Any], param: str) -> None:
    named, message = refused(**fields)
    assert named == param
    assert message.startswith(f"{param}: ")


@pytest.mark.parametrize("value", [0, 1])
def test_a_neutral_temperature_goes_with_beams(value: float) -> None:
    made = plan(num_beams=2, temperature=value, top_p=1, top_k=0, min_p=0, typical_p=1, seed=3)
    assert made.options.decoding == BeamSearch(num_beams=2, num_return_sequences=1)


@pytest.mark.parametrize(
    "fields, constraint",
    [
        ({"json_schema": {"type": "null"}}, JsonSchema({"type": "null"})),
        ({"json_schema": '{"const": 9007199254740993}'}, JsonSchema('{"const": 9007199254740993}')),
        ({"regex": "a|b"}, Regex("a|b")),
        ({"choices": ["x", "y"]}, Choices(("x", "y"))),
        ({"lark": "start: /a/"}, Lark("start: /a/")),
        ({"stored_choices": "articles"}, StoredChoices("articles")),
    ],
)
def test_a_constraint_is_one_of_five(fields: dict[str, Any], constraint: object) -> None:
    assert plan(**fields).options.constraint == constraint


@pytest.mark.parametrize(
    "form, constraint",
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, JsonSchema({"type": "object"})),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "null"}}},
            JsonSchema({"type": "null"}),
        ),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, JsonSchema({})),
    ],
)
def test_a_response_format_is_a_constraint(form: dict[str, Any], constraint: object) -> None:
    assert chat_plan(response_format=form).options.constraint == constraint


def test_a_chat_takes_both_names_of_its_limit() -> None:
    assert chat_plan(max_tokens=5).options.max_new_tokens == 5
    assert chat_plan(max_completion_tokens=5).options.max_new_tokens == 5
    assert chat_plan(max_completion_tokens=5, max_tokens=5).options.max_new_tokens == 5
    with pytest.raises(ApiError, match="max_tokens: is 6, and max_completion_tokens is 5"):
        chat_plan(max_completion_tokens=5, max_tokens=6)


def test_top_logprobs_need_logprobs() -> None:
    with pytest.raises(ApiError, match="top_logprobs: needs logprobs"):
        chat_plan(top_logprobs=3)


def test_text_may_be_literal() -> None:
    made = plan(prompt=["a", "b"], literal=True, add_special_tokens=False)
    assert made.prompts == [
        Text(text, literal=True, add_special_tokens=False) for text in ("a", "b")
    ]


@pytest.mark.parametrize(
    "fields, path, param",
    [
        ({}, "options.sampling.top_p", "top_p"),
        ({}, "options.sampling.logit_bias[3].token_id", "logit_bias"),
        ({}, "options.stopping.max_new_tokens", "max_tokens"),
        ({}, "options.stopping.stop_strings[1]", "stop"),
        ({}, "options.stopping.min_new_tokens", "min_tokens"),
        ({}, "options.output.top_logprobs", "logprobs"),
        ({}, "options.constraint.choices.values[2]", "choices"),
        ({}, "options.priority", "priority"),
        ({}, "prompts[0].tokens.ids", "prompt"),
        ({}, "prompt", "prompt"),
        ({}, "", None),
        ({"best_of": 3}, "options.beam_search.num_beams", "best_of"),
        ({"num_beams": 3}, "options.beam_search.num_beams", "num_beams"),
        ({"num_beams": 3}, "options.beam_search.num_return_sequences", "n"),
    ],
)
def test_a_field_of_the_protocol_has_the_name_of_the_request(
    fields: dict[str, Any], path: str, param: str | None
) -> None:
    assert plan(**fields).param(path) == param


def test_a_chat_names_its_own_fields() -> None:
    made = chat_plan()
    assert made.param("prompts[0]") == "messages"
    assert made.param("options.stopping.max_new_tokens") == "max_completion_tokens"
    assert made.param("options.constraint.json_schema") == "response_format"
    assert chat_plan(max_tokens=1).param("options.stopping.max_new_tokens") == "max_tokens"


def test_an_error_of_the_server_lists_all_its_fields() -> None:
    violations = (
        Violation("options.sampling.top_p", "must be in (0, 1]"),
        Violation("options.stopping.min_new_tokens", "must not exceed max_new_tokens"),
    )
    error = to_api_error(
        InvalidRequestError("as the server says", grpc.StatusCode.INVALID_ARGUMENT, violations),
        plan(),
    )
    assert error.param == "top_p"
    assert error.message == "top_p: must be in (0, 1]; min_tokens: must not exceed max_tokens"
