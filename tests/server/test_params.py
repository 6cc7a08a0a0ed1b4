"""Validation of parameters: every bad field is named."""

import math
from dataclasses import replace
from typing import Any

import pytest

from gpt2flow.server.errors import InvalidRequestError
from gpt2flow.server.limits import Limits
from gpt2flow.server.params import (
    BeamSearchParams,
    ConstraintKind,
    ConstraintParams,
    GenerationParams,
    OutputParams,
    SamplingParams,
    StoppingParams,
    prompt_room,
    resolve_max_new_tokens,
    validate,
)

LIMITS = Limits(
    context_length=100,
    vocabulary_size=50,
    max_sequences=4,
    max_queued=8,
    max_top_logprobs=5,
    default_max_new_tokens=16,
)


def bad_fields(**options: Any) -> list[str]:
    """Return the fields that validation reports, in order."""
    try:
        validate(GenerationParams(**options), LIMITS)
    except InvalidRequestError as error:
        return [violation.field for violation in error.violations]
    return []


def test_defaults_are_valid() -> None:
    assert bad_fields() == []
    assert bad_fields(decoding=BeamSearchParams(num_beams=4)) == []


@pytest.mark.parametrize(
    "name,bad,good",
    [
        ("temperature", [-0.1, 100.1, math.nan, math.inf], [0, 1, 100]),
        ("top_p", [0, -1, 1.01, math.nan], [0.01, 1]),
        ("min_p", [-0.1, 1, math.nan], [0, 0.99]),
        ("typical_p", [0, 1.1, math.nan], [0.2, 1]),
        ("repetition_penalty", [0, -1, math.nan, math.inf], [0.5, 2]),
        ("presence_penalty", [-2.1, 2.1, math.nan], [-2, 2]),
        ("frequency_penalty", [-2.1, 2.1, math.nan], [-2, 2]),
        ("n", [0, 5], [1, 4]),
        ("logit_bias", [((1, 1.0),) * 1025], [((49, -100.0), (0, 100.0))]),
        ("bad_words", [("x",) * 257], [("x", "y")]),
    ],
)
def test_sampling_parameters_out_of_range_are_named(
    name: str, bad: list[Any], good: list[Any]
) -> None:
    for value in bad:
        fields = bad_fields(decoding=SamplingParams(**{name: value}))
        assert fields == [f"options.sampling.{name}"], value
    for value in good:
        assert bad_fields(decoding=SamplingParams(**{name: value})) == [], value


@pytest.mark.parametrize("bad,good", [(-101, -100), (101, 100)])
def test_a_priority_out_of_range_is_named(bad: int, good: int) -> None:
    assert bad_fields(priority=bad) == ["options.priority"]
    assert bad_fields(priority=good) == []


@pytest.mark.parametrize(
    "name,bad,good",
    [
        ("num_beams", [0, 5], [1, 4]),
        ("num_return_sequences", [0, 3], [1, 2]),
        ("length_penalty", [math.nan, math.inf, 101], [-1, 0, 2]),
        ("repetition_penalty", [0, math.nan], [1.5]),
        ("logit_bias", [((1, 1.0),) * 1025], [((49, -100.0), (0, 100.0))]),
        ("bad_words", [("x",) * 257], [("x", "y")]),
    ],
)
def test_beam_search_parameters_out_of_range_are_named(
    name: str, bad: list[Any], good: list[Any]
) -> None:
    for value in bad:
        decoding = BeamSearchParams(**{"num_beams": 2, name: value})
        assert bad_fields(decoding=decoding) == [f"options.beam_search.{name}"], value
    for value in good:
        assert bad_fields(decoding=BeamSearchParams(**{"num_beams": 2, name: value})) == [], value


@pytest.mark.parametrize(
    "options,field",
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 3, "min_new_tokens": 4}, "min_new_tokens"),
        ({"min_new_tokens": 101}, "min_new_tokens"),
        ({"stop_strings": ("a", "")}, "stop_strings[1]"),
        ({"stop_strings": ("a" * 1025,)}, "stop_strings[0]"),
        ({"stop_strings": ("a",) * 33}, "stop_strings"),
        ({"stop_token_ids": (3, 50)}, "stop_token_ids[1]"),
        ({"time_limit_seconds": 0}, "time_limit_ms"),
    ],
)
def test_stopping_criteria_out_of_range_are_named(options: dict[str, Any], field: str) -> None:
    assert bad_fields(stopping=StoppingParams(**options)) == [f"options.stopping.{field}"]


@pytest.mark.parametrize(
    "values,field",
    [
        ((), "values"),
        (("a", "a"), "values"),
        (("a", ""), "values[1]"),
    ],
)
def test_choices_must_be_distinct_and_not_empty(values: tuple[str, ...], field: str) -> None:
    constraint = ConstraintParams(ConstraintKind.CHOICES, values)
    assert bad_fields(constraint=constraint) == [f"options.constraint.choices.{field}"]


def test_a_huge_grammar_is_refused() -> None:
    constraint = ConstraintParams(ConstraintKind.REGEX, ("a" * 300_000,))
    assert bad_fields(constraint=constraint) == ["options.constraint.regex"]


def test_top_logprobs_need_logprobs() -> None:
    field = ["options.output.top_logprobs"]
    assert bad_fields(output=OutputParams(top_logprobs=1)) == field
    assert bad_fields(output=OutputParams(top_logprobs=6, logprobs=True)) == field
    assert bad_fields(output=OutputParams(top_logprobs=5, prompt_logprobs=True)) == []


def test_greedy_decoding_has_one_candidate() -> None:
    assert bad_fields(decoding=SamplingParams(temperature=0, n=2)) == ["options.sampling.n"]


@pytest.mark.parametrize(
    "kind,name,needed",
    [(SamplingParams, "sampling", {}), (BeamSearchParams, "beam_search", {"num_beams": 2})],
)
def test_bad_list_entries_are_named_by_index(
    kind: type[Any], name: str, needed: dict[str, int]
) -> None:
    decoding = kind(logit_bias=((1, 0.0), (50, 200.0)), bad_words=("a", ""), **needed)
    assert bad_fields(decoding=decoding) == [
        f"options.{name}.logit_bias[1].token_id",
        f"options.{name}.logit_bias[1].bias",
        f"options.{name}.bad_words[1]",
    ]


def test_no_new_tokens_are_for_the_log_probabilities_of_the_prompt() -> None:
    stopping = StoppingParams(max_new_tokens=0)
    assert bad_fields(stopping=stopping) == ["options.stopping.max_new_tokens"]
    wanted = OutputParams(prompt_logprobs=True)
    assert bad_fields(stopping=stopping, output=wanted) == []
    params = GenerationParams(
        stopping=stopping, output=wanted, decoding=BeamSearchParams(num_beams=4)
    )
    assert params.slots_needed == 1
    delayed = StoppingParams(max_new_tokens=0, min_new_tokens=1)
    assert bad_fields(stopping=delayed, output=wanted) == ["options.stopping.min_new_tokens"]


def test_the_room_of_a_truncated_prompt_leaves_the_new_tokens() -> None:
    assert prompt_room(StoppingParams(max_new_tokens=30), LIMITS) == 70
    assert prompt_room(StoppingParams(max_new_tokens=0), LIMITS) == 100
    assert prompt_room(StoppingParams(), LIMITS) == 84
    assert prompt_room(StoppingParams(ceiling=7), LIMITS) == 93
    assert prompt_room(StoppingParams(), replace(LIMITS, default_max_new_tokens=90)) == 50


def test_all_bad_fields_are_named_together() -> None:
    fields = bad_fields(
        decoding=SamplingParams(top_p=2, min_p=-1),
        stopping=StoppingParams(max_new_tokens=0),
        constraint=ConstraintParams(ConstraintKind.CHOICES, ()),
        output=OutputParams(top_logprobs=1),
    )
    assert fields == [
        "options.sampling.top_p",
        "options.sampling.min_p",
        "options.stopping.max_new_tokens",
        "options.constraint.choices.values",
        "options.output.top_logprobs",
    ]


def test_candidates_and_beams_need_a_slot_each() -> None:
    assert GenerationParams(decoding=SamplingParams(n=3)).slots_needed == 3
    assert GenerationParams(decoding=BeamSearchParams(num_beams=4)).slots_needed == 4


def test_max_new_tokens_is_limited_by_the_context() -> None:
    assert resolve_max_new_tokens(90, StoppingParams(max_new_tokens=10), LIMITS) == 10
    with pytest.raises(InvalidRequestError, match=r"90 tokens.*\(11\).*100") as caught:
        resolve_max_new_tokens(90, StoppingParams(max_new_tokens=11), LIMITS)
    assert caught.value.violations[0].field == "options.stopping.max_new_tokens"


def test_max_new_tokens_defaults_to_the_rest_of_the_context() -> None:
    assert resolve_max_new_tokens(10, StoppingParams(), LIMITS) == 16
    assert resolve_max_new_tokens(95, StoppingParams(), LIMITS) == 5
    assert resolve_max_new_tokens(10, StoppingParams(ceiling=7), LIMITS) == 7
    assert resolve_max_new_tokens(10, StoppingParams(ceiling=70), LIMITS) == 16
    with pytest.raises(InvalidRequestError, match=r"100 tokens.*\(1\).*100"):
        resolve_max_new_tokens(100, StoppingParams(), LIMITS)
