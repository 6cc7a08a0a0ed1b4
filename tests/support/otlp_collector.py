"""Collector of OpenTelemetry that keeps the spans it receives."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class OtlpCollector(TraceServiceServicer):
    """Collector on a free port of 127.0.0.1.

    Attributes:
        endpoint: URL of the collector.
        spans: Received spans.
        services: Names of the services that sent them.
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self.spans: list[Span] = []
        self.services: set[str] = set()

    def Export(self, request: Any, _context: Any) -> Any:  # noqa: N802 - the protocol's name
        for resource in request.resource_spans:
            self.services.add(attributes(resource.resource)["service.name"])
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return otlp.ExportTraceServiceResponse()

    def named(self, name: str) -> list[Span]:
        """Return the spans of a name, in the order of their start."""
        found = [span for span in self.spans if span.name == name]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    def content(self) -> bytes:
        """Return all that was received, to search for texts."""
        return b"".join(each.SerializeToString() for each in self.spans)


@contextmanager
def otlp_collector() -> Iterator[OtlpCollector]:
    """Run a collector until the block ends."""
    collector = OtlpCollector()
    server = grpc.server(ThreadPoolExecutor(1))
    add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    collector.endpoint = f"http://127.0.0.1:{port}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None)


def attributes(span: Any) -> dict[str, Any]:
    """Return the attributes of a span or resource."""
    return {each.key: _value(each.value) for each in span.attributes}


def _value(given: Any) -> Any:
    kind = given.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in given.array_value.values]
    return getattr(given, kind)
