"""Fields of a chat completion request."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from gpt2flow.gateway.fields.generation import (
    Count,
    GenerationFields,
    RequestPart,
    union_kind,
)
from gpt2flow.gateway.fields.messages import Messages

_MAX_TOOLS = 128

ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class FunctionDefinition(RequestPart):
    """Function that the model may call.

    Attributes:
        parameters: JSON schema of the arguments; None is an object without properties.
        strict: Has no effect: arguments always match the schema.
    """

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolDefinition(RequestPart):
    """Tool that the model may call."""

    type: Literal["function"]
    function: FunctionDefinition


class _FunctionName(RequestPart):
    name: str


class NamedTool(RequestPart):
    """Choice of one tool."""

    type: Literal["function"]
    function: _FunctionName


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<text>")]
    | Annotated[NamedTool, Tag("<list>")],
    Discriminator(union_kind),
]


class TextFormat(RequestPart):
    """Answer in any form."""

    type: Literal["text"]


class ObjectFormat(RequestPart):
    """Answer that is a JSON object."""

    type: Literal["json_object"]


class NamedSchema(RequestPart):
    """JSON schema with its name.

    Attributes:
        body: The schema; None admits any JSON.
        strict: Has no effect: answers always match the schema.
    """

    name: str
    description: str | None = None
    body: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class SchemaFormat(RequestPart):
    """Answer that matches a JSON schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


def _format_kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    return f"<{kind}>" if kind in {"json_object", "json_schema"} else "<text>"


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[ObjectFormat, Tag("<json_object>")]
    | Annotated[SchemaFormat, Tag("<json_schema>")],
    Discriminator(_format_kind),
]


class ChatRequest(GenerationFields):
    """Fields of `POST /v1/chat/completions`."""

    messages: Messages
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Count | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[ToolDefinition], Field(max_length=_MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None

    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    parallel_tool_calls: Any = None

    audio: None = None
    function_call: None = None
    functions: None = None
    prediction: None = None
    reasoning_effort: None = None
    verbosity: None = None
    web_search_options: None = None
