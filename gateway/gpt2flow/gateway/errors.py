"""Errors at the start, and answers in OpenAI's form."""

from collections.abc import Mapping
from typing import Any, Final

# Type that OpenAI gives errors of a status; other errors of the client are invalid requests.
_TYPES: Final = {403: "permission_error", 429: "rate_limit_error"}
_CLIENT_TYPE, _SERVER_TYPE = "invalid_request_error", "server_error"


class GatewayError(Exception):
    """Base class of the errors that prevent a start."""


class GatewayConfigError(GatewayError):
    """Setting that is invalid; the message names it."""


class ListenError(GatewayError):
    """Address that cannot be listened on."""


class ApiError(Exception):
    """Refusal or failure of a request.

    Args:
        status: HTTP status.
        message: Reason, and what is allowed.
        param: Path of the field or name of the header that it is about.
        code: Word for programs, such as `model_not_found`.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def content(self) -> dict[str, Any]:
        """Return the error as OpenAI's JSON object."""
        kind = _SERVER_TYPE if self.status >= 500 else _TYPES.get(self.status, _CLIENT_TYPE)
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }


def invalid_field(param: str, message: str, code: str | None = None) -> ApiError:
    """Return the refusal of one field of a request."""
    return ApiError(400, f"{param}: {message}", param=param, code=code)
