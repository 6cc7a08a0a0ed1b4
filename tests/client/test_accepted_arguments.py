"""Tests of unusual values that are accepted, and of schemas."""

import json
import re
from collections.abc import Callable

import numpy as np
import pytest
from pydantic import BaseModel

from gpt2flow.client import JsonSchema, Options, Sampling, SettingsError
from gpt2flow.client.prompts import build_prompt
from gpt2flow.client.requests import build_generate


def test_numbers_of_numpy_and_any_sequence_are_accepted() -> None:
    options = Options(
        Sampling(top_k=np.int64(5), temperature=np.float32(0.5), logit_bias=[(np.int32(3), 1)]),  # type: ignore[arg-type]
        max_new_tokens=np.uint8(7),  # type: ignore[arg-type]
        stop_strings=["a", "b"],  # type: ignore[arg-type]
        stop_token_ids=np.array([1, 2]),  # type: ignore[arg-type]
    )
    message = options.message()
    assert (message.sampling.top_k, message.sampling.temperature) == (5, 0.5)
    assert [(each.token_id, each.bias) for each in message.sampling.logit_bias] == [(3, 1.0)]
    assert message.stopping.max_new_tokens == 7
    assert list(message.stopping.stop_strings) == ["a", "b"]
    assert list(message.stopping.stop_token_ids) == [1, 2]
    assert list(build_prompt("prompt", np.array([4, 5])).tokens.ids) == [4, 5]  # type: ignore[arg-type]
    assert hash(options) == hash(options)


def test_generators_are_read_once_and_may_be_sent_again() -> None:
    options = Options(stop_strings=(each for each in "ab"))  # type: ignore[arg-type]
    prompts = (each for each in ("x", iter([1, 2])))
    request = build_generate(prompts, options, "")  # type: ignore[arg-type]
    assert [each.WhichOneof("input") for each in request.prompts] == ["text", "tokens"]
    assert list(request.prompts[1].tokens.ids) == [1, 2]
    assert [list(options.message().stopping.stop_strings) for _ in range(2)] == [["a", "b"]] * 2


class Parcel(BaseModel):
    late: bool
    note: str | None = None


def test_a_schema_may_be_text_a_dict_or_a_pydantic_model() -> None:
    schema = Parcel.model_json_schema()
    for given_as in (json.dumps(schema), schema, Parcel):
        message = Options(constraint=JsonSchema(given_as)).message()
        assert json.loads(message.constraint.json_schema) == schema


def test_a_model_without_a_schema_is_refused_with_the_reason() -> None:
    class Odd(BaseModel):
        call: Callable[[], None]

    with pytest.raises(SettingsError, match=re.escape("must be a JSON schema: ")):
        JsonSchema(Odd)


def test_a_dict_is_kept_as_it_was() -> None:
    schema = {"const": "保温杯"}
    constraint = JsonSchema(schema)
    schema["const"] = "x"
    assert constraint.schema == '{"const": "保温杯"}'
