"""What every call of either client has: an id, credentials, a deadline, attempts."""

from dataclasses import dataclass
from typing import TypedDict
from uuid import uuid4

import grpc

from gpt2flow.client.errors import SettingsError, client_error
from gpt2flow.client.retry import Attempts, Retry
from gpt2flow.client.security import Security
from gpt2flow.client.token import TokenSource

_MAX_ID_LENGTH = 128
# A year; gRPC takes much longer ones for times that have passed.
_MAX_TIMEOUT = 366 * 86400.0


class Arguments(TypedDict):
    """What gRPC takes beside the request."""

    timeout: float
    metadata: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Calls:
    """Begins the calls of one client.

    Attributes:
        address: Of the server, for messages.
        timeout: Seconds of a call that does not say.
        retry: None tries nothing again.
        token: None sends none.
    """

    address: str
    timeout: float
    retry: Retry | None
    token: TokenSource | None

    def __post_init__(self) -> None:
        """Raise SettingsError when the timeout is no time."""
        _check_timeout(self.timeout)

    def begin(self, timeout: float | None, request_id: str | None) -> "Call":
        """Start the time of a call.

        Raises:
            SettingsError: The id cannot travel in metadata, or the timeout is no time.
        """
        seconds = self.timeout if timeout is None else timeout
        _check_timeout(seconds)
        return Call(self, Attempts(self.retry, seconds), _checked(request_id))


def _check_timeout(seconds: float) -> None:
    if not 0 < seconds <= _MAX_TIMEOUT:
        raise SettingsError(f"timeout is {seconds} s, must be above 0 and at most {_MAX_TIMEOUT:g}")


def bearer(security: Security) -> tuple[tuple[str, str], ...]:
    """Return the metadata of one call that is made without a client.

    Raises:
        SettingsError: The token is not usable.
    """
    return () if security.token is None else _bearer(TokenSource(security.token))


class Call:
    """One call with all its attempts; `id` is the same for all."""

    def __init__(self, calls: Calls, attempts: Attempts, request_id: str) -> None:
        self.id = request_id
        self._calls = calls
        self._attempts = attempts

    def arguments(self) -> Arguments:
        """Those of the next attempt."""
        metadata: tuple[tuple[str, str], ...] = (("x-request-id", self.id),)
        if self._calls.token is not None:
            metadata += _bearer(self._calls.token)
        return {"timeout": self._attempts.remaining(), "metadata": metadata}

    def pause_after(self, error: grpc.RpcError, *, answered: bool = False) -> float:
        """Return the seconds to wait before the next attempt.

        Args:
            error: What ended the last one.
            answered: Whether a part of the answer had come, which no other may follow.

        Raises:
            ClientError: There is no next one.
        """
        failure = client_error(error, self._calls.address, self.id)
        pause = None if answered else self._attempts.pause_after(failure)
        if pause is None:
            raise failure from error
        return pause


def _bearer(token: TokenSource) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token.current()}"),)


def _checked(request_id: str | None) -> str:
    if request_id is None:
        return uuid4().hex
    good = request_id.isascii() and request_id.isprintable() and request_id == request_id.strip()
    if not (good and 0 < len(request_id) <= _MAX_ID_LENGTH):
        raise SettingsError(
            f"request_id is {request_id!r}, must be 1 to {_MAX_ID_LENGTH} characters of "
            "printable ASCII without blanks around"
        )
    return request_id
