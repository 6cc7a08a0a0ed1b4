"""Bytes to messages: what is none is answered like any other bad request."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

_Request = TypeVar("_Request")


@dataclass(frozen=True, slots=True)
class Undecodable:
    """What a method is called with when the bytes are not a message of its type."""


class DecodingInterceptor(grpc.aio.ServerInterceptor):
    """Hands methods of one service an `Undecodable`, where gRPC would say UNKNOWN."""

    def __init__(self, service: str) -> None:
        """Takes the full name of the service; the methods of others are left as they are."""
        self._prefix = f"/{service}/"

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Returns the handler of a call, with a decoder that does not raise."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(self._prefix):
            return handler
        return handler._replace(request_deserializer=_forgiving(handler.request_deserializer))


def _forgiving(decode: Callable[[bytes], _Request]) -> Callable[[bytes], _Request | Undecodable]:
    def decoded(wire: bytes) -> _Request | Undecodable:
        try:
            return decode(wire)
        except DecodeError:
            return Undecodable()

    return decoded
