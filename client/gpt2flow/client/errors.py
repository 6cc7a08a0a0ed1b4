"""The errors of a call, one class for each thing a caller can do about it."""

from dataclasses import dataclass

import grpc

from gpt2flow.client.rpc_status import details


@dataclass(frozen=True)
class Violation:
    """One bad field of a request."""

    field: str
    description: str


class ClientError(Exception):
    """Base of all errors of a call; `code` is the gRPC status."""

    def __init__(self, message: str, code: grpc.StatusCode) -> None:
        super().__init__(message)
        self.code = code


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


class ServerError(ClientError):
    """Everything else: a defect, or a right that is missing."""


def client_error(error: grpc.RpcError | grpc.aio.AioRpcError, address: str) -> ClientError:
    """Makes the typed error of a failed call to `address`."""
    # Every error of a call that grpcio raises is a Call too; its stubs do not say so.
    call: grpc.Call = error  # type: ignore[assignment]
    code, text = call.code(), call.details() or ""
    violations, delay = _details(call)
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE:
            return InvalidRequestError(text, code, violations)
        case grpc.StatusCode.NOT_FOUND:
            return NotFoundError(text, code)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return OverloadedError(text, code, delay)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceededError(f"no answer from {address} in time ({text})", code)
        case grpc.StatusCode.UNAVAILABLE:
            return UnavailableError(f"no server answers at {address} ({text})", code)
    return ServerError(f"{code.name}: {text}", code)


def _details(call: grpc.Call) -> tuple[tuple[Violation, ...], float | None]:
    for key, value in call.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            violations, delay = details(value)
            return tuple(Violation(*v) for v in violations), delay
    return (), None
