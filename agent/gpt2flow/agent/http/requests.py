"""Requests: body, fields, and errors that name the field."""

import unicodedata
import uuid
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from starlette.responses import JSONResponse

from gpt2flow.agent.agent import validate_message
from gpt2flow.agent.errors import InputError
from gpt2flow.files.documents import first_error

# Limits of the agent on the ids of sessions and messages.
_MAX_ID_CHARACTERS = 200
_TEXT_CONTROLS = "\t\n\r"
_CHANNEL_RULE = "must be 1 to 32 of the characters a-z 0-9 _ -"


class RequestError(Exception):
    """Refusal of a request, with its HTTP status.

    Args:
        status: HTTP status.
        field: Field or header that the refusal is about; None is none of them.
        message: Reason, and what is allowed.
        retry_after: Seconds after which the request may be sent again.
    """

    def __init__(
        self, status: int, field: str | None, message: str, *, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.field = field
        self.message = message
        self.retry_after = retry_after

    def content(self) -> dict[str, Any]:
        """Return the refusal as a JSON object."""
        return {"error": {"field": self.field, "message": self.message}}

    def response(self) -> JSONResponse:
        """Return the refusal as a response."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Webhook-Signature"
        return JSONResponse(self.content(), self.status, headers)


@dataclass(frozen=True)
class Message:
    """Customer message of a valid request.

    Attributes:
        session: Id of the conversation.
        id: Id of the message within its session.
        text: Message as typed.
        channel: Name of the channel that the message came through.
        trace: `traceparent` of the request; requests that repeat a message may differ in it.
    """

    session: str
    id: str
    text: str
    channel: str | None = None
    trace: str = field(default="", compare=False)


def check_id(value: str) -> str:
    """Return the id of a session or message.

    Raises:
        PydanticCustomError: The id is empty, too long or not printable.
    """
    if not value.strip() or len(value) > _MAX_ID_CHARACTERS or not value.isprintable():
        rule = f"must be 1 to {_MAX_ID_CHARACTERS} printable characters"
        raise PydanticCustomError("id", "{rule}", {"rule": rule})
    return value


def _check_controls(value: str) -> str:
    for position, character in enumerate(value):
        if unicodedata.category(character) == "Cc" and character not in _TEXT_CONTROLS:
            rule = f"has the control character U+{ord(character):04X} at position {position}"
            raise PydanticCustomError("control", "{rule}", {"rule": rule})
    return value


_Id = Annotated[str, AfterValidator(check_id)]


class _MessageBody(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    session: _Id
    text: Annotated[str, AfterValidator(_check_controls)]
    id: _Id | None = None
    channel: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,32}$")] | None = None


def parse_message(body: str, webhook_id: str | None, trace: str = "") -> Message:
    """Return the message of a request's body.

    Args:
        body: Body of the request.
        webhook_id: Header `webhook-id`, which is the id of a message without one.
        trace: Header `traceparent`, unchecked; empty without one.

    Raises:
        RequestError: The body is not JSON, or a field is invalid.
    """
    try:
        given = _MessageBody.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(first_error(error)) from error
    try:
        validate_message(given.session, given.text)
    except InputError as error:
        raise RequestError(422, "text", str(error)) from error
    return Message(given.session, given.id or _id(webhook_id), given.text, given.channel, trace)


def _id(webhook_id: str | None) -> str:
    if webhook_id is None:
        return uuid.uuid4().hex
    try:
        return check_id(webhook_id)
    except PydanticCustomError as error:
        raise RequestError(422, "webhook-id", error.message()) from error


def _refusal(error: ErrorDetails) -> RequestError:
    field = ".".join(map(str, error["loc"]))
    match error["type"]:
        case "json_invalid":
            return RequestError(400, "body", f"is not JSON: {error['ctx']['error']}")
        case "extra_forbidden":
            allowed = ", ".join(_MessageBody.model_fields)
            return RequestError(422, field, f"unknown field; allowed: {allowed}")
        case "missing":
            return RequestError(422, field, "is missing")
        case "string_pattern_mismatch":
            return RequestError(422, field, _CHANNEL_RULE)
        case "model_type":
            return RequestError(400, "body", "is not a JSON object")
        case _:
            return RequestError(422, field, error["msg"])
