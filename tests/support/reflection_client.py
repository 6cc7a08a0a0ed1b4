"""Client that uses server reflection alone, like grpcurl, with JSON messages."""

from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)


class Reflected:
    """Services of one server, called without any generated stub."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._database = ProtoReflectionDescriptorDatabase(channel)
        # Not the default pool, which contains the messages of imported stubs.
        self._pool: Any = DescriptorPool(self._database)

    def services(self) -> set[str]:
        return set(self._database.get_services())

    def describe(self, symbol: str) -> str:
        """Return the name of the file that defines a symbol."""
        return str(self._pool.FindFileContainingSymbol(symbol).name)

    def call(self, path: str, request: str = "{}") -> Iterator[dict[str, Any]]:
        """Call `SERVICE/METHOD` with a JSON request and yield its responses."""
        service, method_name = path.split("/")
        method = self._pool.FindServiceByName(service).methods_by_name[method_name]
        message = json_format.Parse(request, GetMessageClass(method.input_type)())
        call: Any = self._channel.unary_stream(
            f"/{path}",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        for response in call(message, timeout=60):
            yield json_format.MessageToDict(response)
