"""Options of the typed client that a request asks for."""

from collections.abc import Mapping
from typing import Any

from gpt2flow.client import (
    BeamSearch,
    Choices,
    JsonSchema,
    Lark,
    Options,
    Regex,
    Sampling,
    StoredChoices,
)
from gpt2flow.gateway.errors import invalid_field
from gpt2flow.gateway.fields.generation import GenerationFields

AnyConstraint = JsonSchema | Regex | Choices | Lark | StoredChoices


def plan_constraint(
    fields: GenerationFields, others: Mapping[str, AnyConstraint | None]
) -> AnyConstraint | None:
    """Return the constraint of a request; None without one.

    Args:
        fields: Fields of the request.
        others: Constraints of further fields, by their names.

    Raises:
        ApiError: There are several.
    """
    given: dict[str, AnyConstraint] = {}
    if fields.json_schema is not None:
        given["json_schema"] = JsonSchema(fields.json_schema)
    if fields.regex is not None:
        given["regex"] = Regex(fields.regex)
    if fields.choices is not None:
        given["choices"] = Choices(tuple(fields.choices))
    if fields.lark is not None:
        given["lark"] = Lark(fields.lark)
    if fields.stored_choices is not None:
        given["stored_choices"] = StoredChoices(fields.stored_choices)
    given |= {name: each for name, each in others.items() if each is not None}
    if len(given) > 1:
        first, second, *_ = given
        raise invalid_field(second, f"excludes {first}: an answer has one constraint")
    return next(iter(given.values()), None)


def plan_options(
    fields: GenerationFields,
    decoding: Sampling | BeamSearch,
    constraint: AnyConstraint | None,
    **others: Any,
) -> Options:
    """Return the options of a request.

    Args:
        fields: Fields of the request.
        decoding: Its decoding.
        constraint: Its constraint; None allows any text.
        others: Options that completions and chat completions name differently.
    """
    return Options(
        decoding=decoding,
        constraint=constraint,
        min_new_tokens=fields.min_tokens or 0,
        stop_strings=fields.stop_strings,
        stop_token_ids=tuple(fields.stop_token_ids or ()),
        include_stop_string=bool(fields.include_stop_string),
        ignore_eos=bool(fields.ignore_eos),
        time_limit_ms=fields.time_limit_ms or 0,
        return_partial_on_time_limit=bool(fields.return_partial_on_time_limit),
        truncate_prompt=bool(fields.truncate_prompt),
        priority=fields.priority or 0,
        token_ids=bool(fields.token_ids),
        include_special_tokens=bool(fields.include_special_tokens),
        **others,
    )
