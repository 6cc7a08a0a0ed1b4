"""Translation of errors to gRPC status."""

import asyncio
import functools
import math
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from gpt2flow.server.errors import (
    ErrorCode,
    FieldViolation,
    InvalidRequestError,
    OverloadedError,
    PermissionDeniedError,
    ServerError,
)
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
    ErrorCode.UNLOADED: grpc.StatusCode.UNAVAILABLE,
    ErrorCode.LOAD_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.DRAINING: grpc.StatusCode.UNAVAILABLE,
    ErrorCode.BROKEN: grpc.StatusCode.UNAVAILABLE,
    ErrorCode.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorCode.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
}
# Metadata key of error details: https://grpc.io/docs/guides/error/.
_DETAILS_KEY = "grpc-status-details-bin"
# Metadata key of the delay of gRPC's own retries: https://grpc.io/docs/guides/retry/.
_PUSHBACK_KEY = "grpc-retry-pushback-ms"
# Clients accept 8 KiB of metadata. The message is sent twice, once percent-encoded, with three
# bytes for each byte that is not ASCII. Details are sent in base64, with four bytes for three.
_TEXT_BYTES = 512
_VIOLATION_BYTES = 256
_VIOLATIONS_BYTES = 3072


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Placeholder of a request that cannot be decoded."""


def reports_errors(
    method: _Method[_Servicer, _Request, _Response],
) -> _Method[_Servicer, _Request, _Response]:
    """Translate errors of a servicer's method to its gRPC status.

    Cancellation is not an error, and passes through. A client may leave before its call is
    cancelled here; then gRPC fails to send, which is a cancellation too.
    """

    @functools.wraps(method)
    async def reporting(servicer: _Servicer, request: _Request, context: Context) -> _Response:
        try:
            try:
                return await method(servicer, _decoded(request), context)
            except grpc.aio.InternalError:
                raise
            except Exception as error:  # noqa: BLE001 - any other failure ends with INTERNAL
                return await _abort(context, error)
        except grpc.aio.InternalError as error:
            raise asyncio.CancelledError from error

    return reporting


def _decoded(request: _Request | Undecodable) -> _Request:
    if isinstance(request, Undecodable):
        raise InvalidRequestError.of("", "the bytes are not a message of the RPC's type")
    return request


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Return the status of an error, and log an internal one."""
    kind = error.code if isinstance(error, ServerError) else ErrorCode.INTERNAL
    current_call().error = kind.value
    if kind not in _STATUS:
        incident = uuid.uuid4().hex
        structlog.get_logger().error("internal_error", incident=incident, exc_info=error)
        return grpc.StatusCode.INTERNAL, f"internal error {incident}"
    return _STATUS[kind], _truncate(str(error), _TEXT_BYTES)


async def _abort(context: Context, error: Exception) -> NoReturn:
    code, message = status_of(error)
    metadata = list(context.trailing_metadata())
    # Those without a token do not learn the load.
    if code is not grpc.StatusCode.UNAUTHENTICATED and (load := current_call().load):
        metadata.append(load())
    if isinstance(error, ServerError) and (detail := _detail(error)):
        status = Status(code=code.value[0], message=message)
        status.details.append(detail)
        metadata.append((_DETAILS_KEY, status.SerializeToString()))
    if isinstance(error, OverloadedError):
        metadata.append((_PUSHBACK_KEY, str(_retry_ms(error))))
    await context.abort(code, message, tuple(metadata))


def _detail(error: ServerError) -> AnyMessage | None:
    detail = AnyMessage()
    if isinstance(error, InvalidRequestError | PermissionDeniedError) and error.violations:
        detail.Pack(_bad_request(error.violations))
        return detail
    if isinstance(error, OverloadedError):
        delay = Duration()
        delay.FromMilliseconds(_retry_ms(error))
        detail.Pack(RetryInfo(retry_delay=delay))
        return detail
    return None


def _retry_ms(error: OverloadedError) -> int:
    """Return the delay in milliseconds, rounded up."""
    return math.ceil(error.retry_after_seconds * 1000)


def _bad_request(violations: Sequence[FieldViolation]) -> BadRequest:
    """Return details with the bad fields that fit; the first always fits."""
    message = BadRequest()
    for each in violations:
        description = _truncate(each.description, _VIOLATION_BYTES)
        entry = BadRequest.FieldViolation(field=each.field, description=description)
        if message.ByteSize() + entry.ByteSize() > _VIOLATIONS_BYTES:
            break
        message.field_violations.append(entry)
    return message


def _truncate(text: str, limit: int) -> str:
    """Return a text, truncated to at most `limit` bytes of UTF-8."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit:
        return text
    return encoded[: limit - 3].decode(errors="ignore") + "…"
