"""Errors of a call, one class for each way to handle them."""

from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError


@dataclass(frozen=True)
class Violation:
    """Invalid field of a request.

    Attributes:
        field: Path of the field in the request, such as `options.sampling.top_p`.
        description: Rule that the value breaks.
    """

    field: str
    description: str


class SettingsError(ValueError):
    """Invalid setting of a client or argument of a call.

    No call was made. The message names the setting, its value, and what is allowed.
    """


class ClientError(Exception):
    """Base class of the errors of a call.

    Attributes:
        code: gRPC status code of the failed call.
        request_id: Id under which the server logs the call; empty if no call was made.
    """

    def __init__(self, message: str, code: grpc.StatusCode) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = ""


class InvalidRequestError(ClientError):
    """Request with invalid fields; sending it again fails in the same way.

    Attributes:
        violations: All invalid fields; empty if the server lists none.
    """

    def __init__(
        self, message: str, code: grpc.StatusCode, violations: tuple[Violation, ...] = ()
    ) -> None:
        super().__init__(message, code)
        self.violations = violations


class NotFoundError(ClientError):
    """Model not loaded by the server."""


class OverloadedError(ClientError):
    """Server without free capacity for the request.

    Attributes:
        retry_after: Seconds to wait before a retry; None if the server sends no delay.
    """

    def __init__(self, message: str, code: grpc.StatusCode, retry_after: float | None) -> None:
        super().__init__(message, code)
        self.retry_after = retry_after


class DeadlineExceededError(ClientError):
    """Call that did not, or could not, end before its deadline."""


class UnavailableError(ClientError):
    """Server unreachable or about to stop."""


class UnauthenticatedError(ClientError):
    """Bearer token missing or unknown to the server."""


class PermissionDeniedError(ClientError):
    """Authenticated caller without permission for the call."""


class ServerError(ClientError):
    """Any other failure, such as an internal error of the server.

    The message of an internal error contains its id in the server's log.
    """


def to_client_error(
    error: grpc.RpcError | grpc.aio.AioRpcError, address: str, request_id: str
) -> ClientError:
    """Return the typed error of a failed call to `address`."""
    # Every RpcError that grpcio raises for a call is a Call as well; its stubs omit that.
    call: grpc.Call = error  # type: ignore[assignment]
    failure = _typed_error(call, address)
    failure.request_id = request_id
    return failure


# Statuses whose message adds the address to the server's own text.
_MESSAGES: dict[grpc.StatusCode, tuple[type[ClientError], str]] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: (
        DeadlineExceededError,
        "no response from {} before the deadline ({})",
    ),
    grpc.StatusCode.UNAVAILABLE: (UnavailableError, "no server answers at {} ({})"),
    grpc.StatusCode.UNAUTHENTICATED: (
        UnauthenticatedError,
        "{} does not accept the credentials ({})",
    ),
    grpc.StatusCode.PERMISSION_DENIED: (PermissionDeniedError, "{} does not permit the call ({})"),
}


def _typed_error(call: grpc.Call, address: str) -> ClientError:
    code, text = call.code(), call.details() or ""
    violations, retry_after = _status_details(call)
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE:
            return InvalidRequestError(text, code, violations)
        case grpc.StatusCode.NOT_FOUND:
            return NotFoundError(text, code)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return OverloadedError(text, code, retry_after)
    error_type, message = _MESSAGES.get(code, (ServerError, f"{code.name}: {{1}}"))
    return error_type(message.format(address, text), code)


def _status_details(call: grpc.Call) -> tuple[tuple[Violation, ...], float | None]:
    """Return the violations and the retry delay of a call's google.rpc.Status."""
    for key, value in call.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                return _parse_details(value)
            except DecodeError:
                # A proxy may have added or changed the details; the status code suffices.
                break
    return (), None


def _parse_details(status: bytes) -> tuple[tuple[Violation, ...], float | None]:
    # Only errors need these messages, so that importing the client stays fast.
    from google.rpc.error_details_pb2 import BadRequest, RetryInfo  # noqa: PLC0415
    from google.rpc.status_pb2 import Status  # noqa: PLC0415

    violations: list[Violation] = []
    delay = None
    for detail in Status.FromString(status).details:
        bad_request, retry = BadRequest(), RetryInfo()
        if detail.Unpack(bad_request):
            violations += [Violation(v.field, v.description) for v in bad_request.field_violations]
        elif detail.Unpack(retry):
            delay = retry.retry_delay.ToNanoseconds() / 1e9
    return tuple(violations), delay
