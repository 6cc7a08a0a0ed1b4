"""The errors of a call, one class for each thing a caller can do about it."""

from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError

from gpt2flow.client.rpc_status import details


@dataclass(frozen=True)
class Violation:
    """One bad field of a request."""

    field: str
    description: str


class SettingsError(ValueError):
    """A client cannot be made or called like this; the message names the setting."""


class ClientError(Exception):
    """Base of all errors of a call.

    Attributes:
        code: The gRPC status.
        request_id: What the server's log has it under; empty if no call was made.
    """

    def __init__(self, message: str, code: grpc.StatusCode) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = ""


class InvalidRequestError(ClientError):
    """The request is bad as it is; `violations` names each field."""

    def __init__(
        self, message: str, code: grpc.StatusCode, violations: tuple[Violation, ...] = ()
    ) -> None:
        super().__init__(message, code)
        self.violations = violations


class NotFoundError(ClientError):
    """The server has no such model."""


class OverloadedError(ClientError):
    """The server has no room now; try again after `retry_after` seconds, if given."""

    def __init__(self, message: str, code: grpc.StatusCode, retry_after: float | None) -> None:
        super().__init__(message, code)
        self.retry_after = retry_after


class DeadlineExceededError(ClientError):
    """The call did not end, or could not have ended, in its time."""


class UnavailableError(ClientError):
    """No server answers at the address, or it is about to stop."""


class UnauthenticatedError(ClientError):
    """The server wants a token, and got none or one that it does not know."""


class PermissionDeniedError(ClientError):
    """The server knows who calls, and does not let them do this."""


class ServerError(ClientError):
    """Everything else, such as a defect; the message has the server's id of it."""


def client_error(
    error: grpc.RpcError | grpc.aio.AioRpcError, address: str, request_id: str
) -> ClientError:
    """Make the typed error of a failed call to `address`."""
    # Every error of a call that grpcio raises is a Call too; its stubs do not say so.
    call: grpc.Call = error  # type: ignore[assignment]
    failure = _typed(call, address)
    failure.request_id = request_id
    return failure


# Those whose message says more than the server's own text.
_SAYING: dict[grpc.StatusCode, tuple[type[ClientError], str]] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: (DeadlineExceededError, "no answer from {} in time ({})"),
    grpc.StatusCode.UNAVAILABLE: (UnavailableError, "no server answers at {} ({})"),
    grpc.StatusCode.UNAUTHENTICATED: (UnauthenticatedError, "{} does not know who calls ({})"),
    grpc.StatusCode.PERMISSION_DENIED: (PermissionDeniedError, "{} does not allow this ({})"),
}


def _typed(call: grpc.Call, address: str) -> ClientError:
    code, text = call.code(), call.details() or ""
    violations, delay = _details(call)
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE:
            return InvalidRequestError(text, code, violations)
        case grpc.StatusCode.NOT_FOUND:
            return NotFoundError(text, code)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return OverloadedError(text, code, delay)
    kind, saying = _SAYING.get(code, (ServerError, f"{code.name}: {{1}}"))
    return kind(saying.format(address, text), code)


def _details(call: grpc.Call) -> tuple[tuple[Violation, ...], float | None]:
    for key, value in call.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                violations, delay = details(value)
            except DecodeError:
                # Of something between; the status itself is what counts.
                break
            return tuple(Violation(*v) for v in violations), delay
    return (), None
