"""Errors of the server and the client, as answers in OpenAI's form."""

import math
from collections.abc import Mapping
from typing import Final

from gpt2flow.client import (
    ClientError,
    DeadlineExceededError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    SettingsError,
    UnauthenticatedError,
    UnavailableError,
)
from gpt2flow.gateway.errors import ApiError
from gpt2flow.gateway.plan.plan import Plan

# Words of the server about a prompt that is too long, which programs know under a code.
_TOO_LONG: Final = "exceed the model's context"
# gRPC's words about a message above the server's limit.
_TOO_LARGE: Final = "larger than max"


# Status, field, code and headers of the failures that need no more than that.
_FAILURES: Final[Mapping[type[Exception], tuple[int, str | None, str | None, dict[str, str]]]] = {
    NotFoundError: (404, "model", "model_not_found", {}),
    UnauthenticatedError: (401, None, "invalid_api_key", {"WWW-Authenticate": "Bearer"}),
    PermissionDeniedError: (403, None, "permission_denied", {}),
    # Another attempt would take as long.
    DeadlineExceededError: (504, None, "timeout", {"x-should-retry": "false"}),
    UnavailableError: (503, None, "unavailable", {"Retry-After": "1"}),
    SettingsError: (400, None, None, {}),
}


def to_api_error(error: ClientError | SettingsError, plan: Plan | None = None) -> ApiError:
    """Return the answer to a request whose call failed.

    Args:
        error: Error of the typed client.
        plan: Plan of the request, whose names of fields the answer has.
    """
    if isinstance(error, InvalidRequestError):
        return _invalid(error, plan)
    if isinstance(error, OverloadedError):
        return _overloaded(error)
    internal = (500, None, "internal_error", dict[str, str]())
    status, param, code, headers = _FAILURES.get(type(error), internal)
    return ApiError(status, str(error), param=param, code=code, headers=headers)


def _invalid(error: InvalidRequestError, plan: Plan | None) -> ApiError:
    code = "context_length_exceeded" if _TOO_LONG in str(error) else None
    if not error.violations or plan is None:
        return ApiError(400, str(error), code=code)
    lines, params = [], []
    for each in error.violations:
        param = plan.param(each.field)
        params.append(param)
        description = plan.explain(each.description)
        lines.append(f"{param}: {description}" if param else description)
    return ApiError(400, "; ".join(lines), param=params[0], code=code)


def _overloaded(error: OverloadedError) -> ApiError:
    if error.retry_after is None:
        if _TOO_LARGE in str(error):
            return ApiError(413, str(error), code="request_too_large")
        return ApiError(429, str(error), code="rate_limit_exceeded")
    headers = {
        "Retry-After": str(math.ceil(error.retry_after)),
        "retry-after-ms": str(math.ceil(error.retry_after * 1000)),
    }
    return ApiError(429, str(error), code="rate_limit_exceeded", headers=headers)
