"""Messages of a conversation."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from gpt2flow.gateway.fields.generation import RequestPart, union_kind

_ROLES = ("assistant", "developer", "system", "tool", "user")


class TextPart(RequestPart):
    """Part of a content; the models read text only."""

    type: Literal["text"]
    text: str


Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[TextPart], Tag("<list>")],
    Discriminator(union_kind),
]


class FunctionCall(RequestPart):
    """Function that an earlier answer called.

    Attributes:
        arguments: JSON text.
    """

    name: str
    arguments: str


class ToolCall(RequestPart):
    """Call of a tool in an earlier answer."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class SystemMessage(RequestPart):
    """Instruction of the application; `developer` is another name of `system`."""

    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(RequestPart):
    """Message of a person."""

    role: Literal["user"]
    content: Content
    name: str | None = None


class AssistantMessage(RequestPart):
    """Earlier answer, with the fields that answers have."""

    role: Literal["assistant"]
    content: Content | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    refusal: str | None = None
    annotations: Any = None
    audio: None = None
    function_call: None = None


class ToolMessage(RequestPart):
    """Result of a tool."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str
    name: str | None = None


def _message_kind(value: Any) -> str | None:
    role = value.get("role") if isinstance(value, dict) else None
    if role not in _ROLES:
        return None
    return "<system>" if role == "developer" else f"<{role}>"


ChatMessage = Annotated[
    Annotated[SystemMessage, Tag("<system>")]
    | Annotated[UserMessage, Tag("<user>")]
    | Annotated[AssistantMessage, Tag("<assistant>")]
    | Annotated[ToolMessage, Tag("<tool>")],
    Discriminator(
        _message_kind,
        custom_error_type="message",
        custom_error_message=f"must be an object with one of the roles {', '.join(_ROLES)}",
    ),
]
Messages = Annotated[list[ChatMessage], Field(min_length=1)]


def content_text(content: str | Sequence[TextPart] | None) -> str:
    """Return a content as one text."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text for part in content)
