"""Interceptors that run before a method: decoding and authentication."""

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError

from gpt2flow.server.access.permissions import Caller
from gpt2flow.server.access.tokens import Tokens
from gpt2flow.server.access.watched_files import WatchedFiles
from gpt2flow.server.errors import UnauthenticatedError
from gpt2flow.server.servicer.identity import CALLER
from gpt2flow.server.servicer.status import Context, Undecodable, reports_errors

_HEADER = "authorization"

# Health checks need no token: probes have none.
_OPEN = "/grpc.health.v1.Health/"

# Generic for type checkers only.
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]]"

_Request = TypeVar("_Request")


class DecodingInterceptor(grpc.aio.ServerInterceptor):
    """Interceptor that passes undecodable messages on as `Undecodable`.

    gRPC itself would answer with UNKNOWN.
    """

    def __init__(self, service: str) -> None:
        """Take the full name of the service; other services are unaffected."""
        self._prefix = f"/{service}/"

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the handler of an RPC, with a lenient decoder."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(self._prefix):
            return handler
        return handler._replace(request_deserializer=_lenient(handler.request_deserializer))


def _lenient(decode: Callable[[bytes], _Request]) -> Callable[[bytes], _Request | Undecodable]:
    def decoded(wire: bytes) -> _Request | Undecodable:
        try:
            return decode(wire)
        except DecodeError:
            return Undecodable()

    return decoded


class TokenAuthentication(grpc.aio.ServerInterceptor):
    """Interceptor that requires a valid token, and sets the caller."""

    def __init__(self, tokens: WatchedFiles[Tokens], probes: frozenset[str]) -> None:
        """Take the tokens.

        Args:
            tokens: The tokens.
            probes: Paths of further RPCs that need none.
        """
        self._tokens = tokens
        self._probes = probes

    async def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "_Handler | None":
        """Continue with the RPC, or answer it with UNAUTHENTICATED."""
        method = handler_call_details.method
        if not method.startswith(_OPEN) and method not in self._probes:
            try:
                CALLER.set(self._caller(handler_call_details))
            except UnauthenticatedError as error:
                return _Refusal(error).handler
        return await continuation(handler_call_details)

    def _caller(self, details: grpc.HandlerCallDetails) -> Caller:
        values = [value for key, value in details.invocation_metadata or () if key == _HEADER]
        if not values:
            raise UnauthenticatedError(
                f"no token; send it in the metadata: '{_HEADER}: Bearer TOKEN'"
            )
        scheme, _, token = str(values[0]).strip().partition(" ")
        if len(values) > 1 or scheme.lower() != "bearer" or not token.strip():
            raise UnauthenticatedError(f"the metadata must hold one '{_HEADER}: Bearer TOKEN'")
        return self._tokens.get().caller_of(token.strip())


class _Refusal:
    """Handler that refuses an RPC of any kind, without reading its messages."""

    def __init__(self, error: UnauthenticatedError) -> None:
        self._error = error

    @property
    def handler(self) -> _Handler:
        return grpc.stream_stream_rpc_method_handler(self._refuse)

    @reports_errors
    async def _refuse(self, _requests: Any, _context: Context) -> NoReturn:
        raise self._error
