"""Request id, credentials, deadline and attempts of each call."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict
from uuid import uuid4

import grpc

from gpt2flow.client import validation
from gpt2flow.client.addresses import AddressBook
from gpt2flow.client.errors import SettingsError, UnavailableError, to_client_error
from gpt2flow.client.retry import Attempts, Retry
from gpt2flow.client.security import Security
from gpt2flow.client.token import TokenSource

_MAX_REQUEST_ID_LENGTH = 128
_METADATA_KEY = re.compile("[0-9a-z_.-]+")
# One year: gRPC treats much longer timeouts as already expired.
_MAX_TIMEOUT = 366 * 86400.0


Metadata = tuple[tuple[str, str], ...]
# Returns metadata to add to an attempt; it is called where the call is made.
MetadataSource = Callable[[], Metadata]


class CallArguments(TypedDict):
    """Keyword arguments of a gRPC call besides the request."""

    timeout: float
    metadata: Metadata


@dataclass(frozen=True)
class CallFactory:
    """Factory of the calls of one client.

    Attributes:
        addresses: Addresses of the servers.
        timeout: Default deadline of a call, in seconds.
        retry: Retry policy; None disables retries.
        token: Source of the bearer token; None sends no token.
        metadata: Source of further metadata; None sends none.
    """

    addresses: AddressBook
    timeout: float
    retry: Retry | None
    token: TokenSource | None
    metadata: MetadataSource | None = None

    def __post_init__(self) -> None:
        """Raise SettingsError if the default timeout or a source is invalid."""
        _valid_timeout(self.timeout)
        if self.retry is not None:
            validation.check_type("retry", self.retry, (Retry,), "Retry or None")
        if self.metadata is not None and not callable(self.metadata):
            raise validation.invalid("metadata", self.metadata, "a function or None")

    def start(
        self, timeout: float | None, request_id: str | None, session: str | None = None
    ) -> "Call":
        """Create a call and start its deadline.

        Args:
            timeout: Deadline in seconds; None uses the default.
            request_id: Id of the call; None generates one.
            session: Session whose calls go to the same address; None for none.

        Raises:
            SettingsError: The timeout is out of range, the id is not valid in gRPC metadata, or
                the session is no text.
        """
        seconds = _valid_timeout(self.timeout if timeout is None else timeout)
        if session is not None and not validation.text("session", session):
            raise validation.invalid("session", session, "text that is not empty, or None")
        return Call(self, Attempts(self.retry, seconds), _valid_request_id(request_id), session)


def _valid_timeout(given: float) -> float:
    seconds = validation.number("timeout", given)
    if not 0 < seconds <= _MAX_TIMEOUT:
        raise SettingsError(
            f"timeout is {seconds} s, must be above 0 and at most {_MAX_TIMEOUT:.0f} s"
        )
    return seconds


def token_source(security: Security) -> TokenSource | None:
    """Return the source of a connection's token; None without one.

    Raises:
        SettingsError: The token is invalid or its file cannot be read.
    """
    validation.check_type("security", security, (Security,), "Security")
    return None if security.token is None else TokenSource(security.token)


def bearer_metadata(security: Security) -> Metadata:
    """Return the authorization metadata of a call made without a client.

    Raises:
        SettingsError: The token is invalid or its file cannot be read.
    """
    token = token_source(security)
    return () if token is None else _authorization(token)


class Call:
    """One call, all its attempts included; they share the request id `id`.

    Attributes:
        id: Id of the call.
        address: Address of the last attempt.
    """

    def __init__(
        self, factory: CallFactory, attempts: Attempts, request_id: str, session: str | None
    ) -> None:
        self.id = request_id
        self.address = ""
        self._factory = factory
        self._attempts = attempts
        self._session = session

    def choose_address(self) -> str:
        """Return the address of the next attempt."""
        self.address = self._factory.addresses.choose(self._session)
        return self.address

    def arguments(self) -> CallArguments:
        """Return the arguments of the next attempt."""
        metadata: Metadata = (("x-request-id", self.id),)
        if self._factory.token is not None:
            metadata += _authorization(self._factory.token)
        if self._factory.metadata is not None:
            metadata += _valid_metadata(self._factory.metadata())
        return {"timeout": self._attempts.remaining(), "metadata": metadata}

    def retry_delay(self, error: grpc.RpcError, *, response_started: bool = False) -> float:
        """Return the seconds to wait before the next attempt.

        An address that cannot be reached is set aside.

        Args:
            error: Error that ended the last attempt.
            response_started: True if a part of the response has arrived. The call is then
                not retried, because a second response could not continue the first.

        Raises:
            ClientError: The call is not retried.
        """
        failure = to_client_error(error, self.address, self.id)
        if isinstance(failure, UnavailableError):
            self._factory.addresses.set_aside(self.address)
        delay = None if response_started else self._attempts.retry_delay(failure)
        if delay is None:
            raise failure from error
        return delay


def _authorization(token: TokenSource) -> Metadata:
    return (("authorization", f"Bearer {token.current()}"),)


def _valid_metadata(given: object) -> Metadata:
    """Return metadata that gRPC can send.

    Raises:
        SettingsError: It is no sequence of such pairs.
    """
    rule = 'pairs of a lower-case key and printable ASCII, such as (("traceparent", "00-…"),)'
    pairs = []
    for item in validation.sequence("metadata", given, rule):
        match item:
            case (str(key), str(value)) if (
                _METADATA_KEY.fullmatch(key) and value.isascii() and value.isprintable()
            ):
                pairs.append((key, value))
            case _:
                raise validation.invalid("metadata", item, rule)
    return tuple(pairs)


def _valid_request_id(request_id: str | None) -> str:
    if request_id is None:
        return uuid4().hex
    validation.text("request_id", request_id)
    valid = request_id.isascii() and request_id.isprintable() and request_id == request_id.strip()
    if not (valid and 0 < len(request_id) <= _MAX_REQUEST_ID_LENGTH):
        raise SettingsError(
            f"request_id is {request_id!r}, must be 1 to {_MAX_REQUEST_ID_LENGTH} characters of "
            "printable ASCII without leading or trailing spaces"
        )
    return request_id
