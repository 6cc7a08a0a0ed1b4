"""Errors to gRPC status: the one place where they are translated."""

import functools
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from gpt2flow.server.errors import ErrorCode, InvalidRequestError, OverloadedError, ServerError
from gpt2flow.server.telemetry.call import current_call

Context = grpc.aio.ServicerContext[Any, Any]

_Servicer = TypeVar("_Servicer")
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Method = Callable[[_Servicer, _Request, Context], Awaitable[_Response]]

_STATUS = {
    ErrorCode.INVALID_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.MODEL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ErrorCode.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.TIME_LIMIT: grpc.StatusCode.DEADLINE_EXCEEDED,
    ErrorCode.LOADING: grpc.StatusCode.UNAVAILABLE,
    ErrorCode.DRAINING: grpc.StatusCode.UNAVAILABLE,
    ErrorCode.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorCode.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
}
# Where rich details travel: https://grpc.io/docs/guides/error/.
_DETAILS_KEY = "grpc-status-details-bin"


def reports_errors(
    method: _Method[_Servicer, _Request, _Response],
) -> _Method[_Servicer, _Request, _Response]:
    """Makes a method of the servicer end with the status of what it raises.

    Cancellation is no error and passes.
    """

    @functools.wraps(method)
    async def reporting(servicer: _Servicer, request: _Request, context: Context) -> _Response:
        try:
            return await method(servicer, request, context)
        except Exception as error:  # noqa: BLE001 - a defect of any kind must end as INTERNAL
            return await _abort(context, error)

    return reporting


async def _abort(context: Context, error: Exception) -> NoReturn:
    kind = error.code if isinstance(error, ServerError) else ErrorCode.INTERNAL
    current_call().error = kind.value
    if not isinstance(error, ServerError) or error.code not in _STATUS:
        incident = uuid.uuid4().hex
        structlog.get_logger().error("internal_error", incident=incident, exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, f"internal error {incident}")
    code, message = _STATUS[error.code], str(error)
    metadata = list(context.trailing_metadata())
    if detail := _detail(error):
        status = Status(code=code.value[0], message=message)
        status.details.append(detail)
        metadata.append((_DETAILS_KEY, status.SerializeToString()))
    await context.abort(code, message, tuple(metadata))


def _detail(error: ServerError) -> AnyMessage | None:
    detail = AnyMessage()
    if isinstance(error, InvalidRequestError):
        violations = [
            BadRequest.FieldViolation(field=violation.field, description=violation.description)
            for violation in error.violations
        ]
        detail.Pack(BadRequest(field_violations=violations))
        return detail
    if isinstance(error, OverloadedError):
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
        detail.Pack(RetryInfo(retry_delay=delay))
        return detail
    return None
