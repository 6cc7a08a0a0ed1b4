"""Spans of RPCs, exported to a collector; requires the extra `telemetry`."""

import time
from collections.abc import Mapping
from typing import Final

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gpt2flow.server.engine.results import GenerationResult, ScoreResult, Timing
from gpt2flow.server.telemetry.call import Call

# Time limit of exporting a batch, retries included; the shutdown waits for the last one.
_EXPORT_SECONDS: Final = 2.0
# Most prompts per RPC that get spans.
_MAX_PROMPTS: Final = 16
# Server errors as https://opentelemetry.io/docs/specs/semconv/rpc/grpc/ defines them.
_SERVER_ERRORS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
_OPERATIONS: Final = dict.fromkeys(
    ("Generate", "GenerateStream", "ModelInfer", "ModelStreamInfer/request"), "text_completion"
)


class Tracing:
    """Source of spans, with its own tracer provider."""

    def __init__(self, endpoint: str) -> None:
        """Start the exporter; an unreachable collector does not block RPCs.

        Args:
            endpoint: Address of the collector: `http://host:port` or `https://host:port`.
        """
        exporter = OTLPSpanExporter(
            endpoint=endpoint, insecure=endpoint.startswith("http:"), timeout=_EXPORT_SECONDS
        )
        # The environment may override the service name.
        resource = Resource({SERVICE_NAME: "gpt2flow"}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("gpt2flow.server")
        self._propagator = TraceContextTextMapPropagator()

    def start(self, call: Call, service: str, metadata: Mapping[str, str]) -> "RpcSpan":
        """Start the span of an RPC, a child of the client's span."""
        parent = self._propagator.extract(metadata)
        method = f"{service}/{call.rpc}"
        attributes = {"rpc.system.name": "grpc", "rpc.method": method}
        span = self._tracer.start_span(method, parent, kind=SpanKind.SERVER, attributes=attributes)
        return RpcSpan(self._tracer, span)

    def close(self) -> None:
        """Export the remaining spans; this blocks for `_EXPORT_SECONDS` at most."""
        self._provider.shutdown()


class RpcSpan:
    """Span of one RPC.

    Attributes:
        trace_id: Id of its trace, in hexadecimal.
    """

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._started = time.time_ns()
        self.trace_id = f"{span.get_span_context().trace_id:032x}"

    def end(self, call: Call, code: str) -> None:
        """End the span, with attributes and the name of the status code."""
        if self._span.is_recording():
            self._set_attributes(call, code)
        self._span.end(self._started + round(call.seconds * 1e9))

    def _set_attributes(self, call: Call, code: str) -> None:
        span = self._span
        span.set_attribute("rpc.response.status_code", code)
        span.set_attribute("gpt2flow.request_id", call.request_id)
        if code in _SERVER_ERRORS:
            span.set_attribute("error.type", code)
            span.set_status(Status(StatusCode.ERROR))
        if call.model:
            self._set_model_attributes(call)
        for i, result in enumerate(call.results[:_MAX_PROMPTS]):
            self._add_phases(i, result)

    def _set_model_attributes(self, call: Call) -> None:
        """Set the attributes of https://opentelemetry.io/docs/specs/semconv/gen-ai/."""
        self._span.set_attributes(
            {
                "gen_ai.operation.name": _OPERATIONS.get(call.rpc, call.rpc.lower()),
                "gen_ai.provider.name": "gpt2flow",
                "gen_ai.request.model": call.model,
            }
        )
        if not call.results:
            return
        tokens = call.tokens()
        self._span.set_attributes(
            {
                "gen_ai.response.model": call.model,
                "gen_ai.response.finish_reasons": sorted(call.finish_reasons()),
                "gen_ai.usage.input_tokens": tokens["prompt"],
                "gen_ai.usage.cache_read.input_tokens": tokens["cached"],
                "gen_ai.usage.output_tokens": tokens["completion"],
                "gpt2flow.usage.forced_tokens": tokens["forced"],
                "gpt2flow.usage.drafted_tokens": tokens["drafted"],
                "gpt2flow.usage.accepted_tokens": tokens["accepted"],
            }
        )

    def _add_phases(self, index: int, result: GenerationResult | ScoreResult) -> None:
        """Add the phases of one prompt as consecutive spans."""
        context = set_span_in_context(self._span)
        start = self._started
        for phase, seconds in _phases(result.timing):
            end = start + round(seconds * 1e9)
            child = self._tracer.start_span(
                phase, context, attributes={"gpt2flow.prompt.index": index}, start_time=start
            )
            child.end(end)
            start = end


def _phases(timing: Timing) -> tuple[tuple[str, float], ...]:
    return ("queue", timing.queue), ("prefill", timing.prefill), ("decode", timing.decode)
