"""Invalid configurations are refused with the field and its value."""

import re
from typing import Any

import pytest

from gpt2flow.export.checkpoint.architecture import Architecture
from gpt2flow.export.errors import CheckpointError

CONFIG: dict[str, Any] = {"model_type": "gpt2", "n_embd": 48, "n_head": 3}


def refusal(changes: dict[str, Any]) -> str:
    with pytest.raises(CheckpointError) as caught:
        Architecture.from_config(CONFIG | changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["llama", "gpt_neo", "gptj", "openai-gpt", "gpt_bigcode", "GPT2", None, ["gpt2"]]
)
def test_another_model_type_is_refused(name: object) -> None:
    assert refusal({"model_type": name}) == (
        f"config.json: model_type is {name!r}; only 'gpt2' can be exported"
    )


def test_a_configuration_without_a_model_type_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"model_type is missing; 'gpt2' is needed$"):
        Architecture.from_config({"n_embd": 48})
    with pytest.raises(CheckpointError, match=r"config\.json does not hold a JSON object$"):
        Architecture.from_config([])


@pytest.mark.parametrize("names", [None, [], ["GPT2LMHeadModel"], ["GPT2Model"]])
def test_classes_that_compute_logits_are_accepted(names: list[str] | None) -> None:
    Architecture.from_config(CONFIG | {"architectures": names})


@pytest.mark.parametrize(
    "name", ["GPT2ForSequenceClassification", "GPT2DoubleHeadsModel", "GPT2LMHeadCustomModel"]
)
def test_a_class_that_computes_something_else_is_refused(name: str) -> None:
    assert refusal({"architectures": [name]}) == (
        f"config.json: architectures is ['{name}']: "
        "only GPT2LMHeadModel and GPT2Model can be exported"
    )


@pytest.mark.parametrize(
    "field, value",
    [
        ("n_head", 0),
        ("n_head", -3),
        ("n_layer", -1),
        ("n_layer", 10**9),
        ("n_layer", True),
        ("n_layer", "two"),
        ("n_embd", 0),
        ("n_embd", 48.0),
        ("n_positions", -64),
        ("n_positions", 3),
        ("vocab_size", 0),
        ("n_inner", 0),
        ("layer_norm_epsilon", 0),
        ("layer_norm_epsilon", float("nan")),
        ("layer_norm_epsilon", float("inf")),
        ("scale_attn_weights", "no"),
        ("add_cross_attention", True),
        ("eos_token_id", "</s>"),
        ("eos_token_id", 1.5),
        ("eos_token_id", True),
        ("bos_token_id", [0]),
        ("pad_token_id", "[PAD]"),
        ("quantization_config", {"load_in_8bit": True}),
    ],
)
def test_an_invalid_value_is_refused_with_what_is_allowed(field: str, value: object) -> None:
    message = refusal({field: value})
    assert re.fullmatch(
        rf"config\.json: {field} is {re.escape(repr(value))}: Input should be .+", message
    )


def test_a_long_value_is_shortened() -> None:
    assert len(refusal({"n_layer": list(range(10_000))})) < 200


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"n_head": 5}, "n_embd 48 is not divisible by n_head 5"),
        (
            {"n_embd": 1028, "n_head": 4},
            "n_embd 1028 and n_head 4 make heads of 257 channels; at most 256 can be exported",
        ),
    ],
)
def test_inconsistent_fields_are_refused(changes: dict[str, Any], message: str) -> None:
    assert refusal(changes) == f"config.json: {message}"
