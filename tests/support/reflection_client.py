"""A client that knows the service by reflection alone, as grpcurl does: JSON in, JSON out."""

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
    """The services of one server; no stub of this project is used."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._database = ProtoReflectionDescriptorDatabase(channel)
        # Of its own: nothing that was imported is in it.
        self._pool: Any = DescriptorPool(self._database)

    def services(self) -> set[str]:
        return set(self._database.get_services())

    def describe(self, symbol: str) -> str:
        """Return the name of the file that defines a service or a message."""
        return str(self._pool.FindFileContainingSymbol(symbol).name)

    def call(self, path: str, request: str = "{}") -> Iterator[dict[str, Any]]:
        """Call `SERVICE/METHOD` with a request in JSON; a unary one answers once."""
        service, method_name = path.split("/")
        method = self._pool.FindServiceByName(service).methods_by_name[method_name]
        message = json_format.Parse(request, GetMessageClass(method.input_type)())
        call: Any = self._channel.unary_stream(
            f"/{path}",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        for answer in call(message, timeout=60):
            yield json_format.MessageToDict(answer)
