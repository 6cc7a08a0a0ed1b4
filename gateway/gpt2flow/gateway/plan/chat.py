"""Plan of a chat completion."""

from gpt2flow.client import BeamSearch, JsonSchema, Prompt
from gpt2flow.gateway.chat.tools import ToolGrammar
from gpt2flow.gateway.errors import invalid_field
from gpt2flow.gateway.fields.chat import ChatRequest, ObjectFormat, SchemaFormat
from gpt2flow.gateway.plan.decoding import plan_decoding
from gpt2flow.gateway.plan.options import plan_constraint, plan_options
from gpt2flow.gateway.plan.plan import Plan


def plan_chat(fields: ChatRequest, prompt: Prompt, tools: ToolGrammar | None) -> Plan:
    """Return the plan of a chat completion.

    Args:
        fields: Fields of the request.
        prompt: Its messages, as the model reads them.
        tools: Grammar of its tools; None if the model may call none.

    Raises:
        ApiError: Fields contradict each other.
    """
    decoding = plan_decoding(fields)
    constraint = plan_constraint(
        fields,
        {
            "response_format": _response_schema(fields),
            "tools": None if tools is None else tools.constraint,
        },
    )
    limit = _limit(fields)
    if fields.top_logprobs is not None and not fields.logprobs:
        raise invalid_field("top_logprobs", "needs logprobs")
    options = plan_options(
        fields,
        decoding,
        constraint,
        max_new_tokens=limit,
        logprobs=bool(fields.logprobs),
        top_logprobs=fields.top_logprobs or 0,
        prompt_logprobs=bool(fields.prompt_logprobs),
    )
    names = {"prompt": "messages"}
    if fields.max_tokens is None:
        names["max_new_tokens"] = "max_completion_tokens"
    if tools is not None:
        names["lark"] = "tools"
    if fields.json_schema is None:
        names["json_schema"] = "response_format"
    return Plan(
        fields.model,
        [prompt],
        options,
        names,
        is_whole=isinstance(decoding, BeamSearch),
        shows_prompt=bool(fields.prompt_logprobs),
    )


def _response_schema(fields: ChatRequest) -> JsonSchema | None:
    match fields.response_format:
        case ObjectFormat():
            return JsonSchema({"type": "object"})
        case SchemaFormat(json_schema=named):
            return JsonSchema(named.body or {})
    return None


def _limit(fields: ChatRequest) -> int | None:
    limit, alias = fields.max_completion_tokens, fields.max_tokens
    if None not in {limit, alias} and limit != alias:
        raise invalid_field(
            "max_tokens", f"is {alias}, and max_completion_tokens is {limit}: give one"
        )
    return alias if limit is None else limit
