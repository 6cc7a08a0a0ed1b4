"""Checks who calls, before anything of a request is read."""

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeAlias

import grpc

from gpt2flow.server.caller import Caller
from gpt2flow.server.errors import UnauthenticatedError
from gpt2flow.server.servicer.callers import CALLER
from gpt2flow.server.servicer.status import Context, reports_errors
from gpt2flow.server.tokens import Tokens
from gpt2flow.server.watched_files import WatchedFiles

_HEADER = "authorization"
# Probes have no credentials.
_OPEN = "/grpc.health.v1.Health/"

# Generic for type checkers only.
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]]"


class TokenAuthentication(grpc.aio.ServerInterceptor):
    """Lets calls with a valid token pass, and tells the handler whose it is."""

    def __init__(self, tokens: WatchedFiles[Tokens]) -> None:
        self._tokens = tokens

    async def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "_Handler | None":
        """Goes on with the call, or answers it with UNCALLER."""
        if not handler_call_details.method.startswith(_OPEN):
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
    """Ends a call of any kind, without reading its messages."""

    def __init__(self, error: UnauthenticatedError) -> None:
        self._error = error

    @property
    def handler(self) -> _Handler:
        return grpc.stream_stream_rpc_method_handler(self._refuse)

    @reports_errors
    async def _refuse(self, _requests: Any, _context: Context) -> NoReturn:
        raise self._error
