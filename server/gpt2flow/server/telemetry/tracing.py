"""Spans of RPCs, in the client's trace, sent to a collector. Needs the extra `telemetry`."""

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

# For a batch, retries included: the end of the server waits for the last one.
_EXPORT_SECONDS: Final = 2.0
# Of an RPC with more prompts, only these have spans of their own.
_MAX_PROMPTS: Final = 16
# What https://opentelemetry.io/docs/specs/semconv/rpc/grpc/ calls a server's error.
_SERVER_ERRORS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
_OPERATIONS: Final = {"Generate": "text_completion", "GenerateStream": "text_completion"}


class Tracing:
    """Makes spans, in a provider of this server's own."""

    def __init__(self, endpoint: str) -> None:
        """Take the collector's address, as `http://host:port`; a silent one hurts nobody."""
        exporter = OTLPSpanExporter(
            endpoint=endpoint, insecure=endpoint.startswith("http:"), timeout=_EXPORT_SECONDS
        )
        # The environment may name the service otherwise.
        resource = Resource({SERVICE_NAME: "gpt2flow"}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("gpt2flow.server")
        self._propagator = TraceContextTextMapPropagator()

    def start(self, call: Call, service: str, metadata: Mapping[str, str]) -> "RpcSpan":
        """Start the span of an RPC, a child of the client's if its metadata names one."""
        parent = self._propagator.extract(metadata)
        method = f"{service}/{call.rpc}"
        attributes = {"rpc.system.name": "grpc", "rpc.method": method}
        span = self._tracer.start_span(method, parent, kind=SpanKind.SERVER, attributes=attributes)
        return RpcSpan(self._tracer, span)

    def close(self) -> None:
        """Send what is left; blocks while that takes, or until a batch's time is up."""
        self._provider.shutdown()


class RpcSpan:
    """The span of one RPC.

    Attributes:
        trace_id: Of the trace that it is part of, in hexadecimal.
    """

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._started = time.time_ns()
        self.trace_id = f"{span.get_span_context().trace_id:032x}"

    def end(self, call: Call, code: str) -> None:
        """End it, with what the RPC came to and the name of its status code."""
        if self._span.is_recording():
            self._note(call, code)
        self._span.end(self._started + round(call.seconds * 1e9))

    def _note(self, call: Call, code: str) -> None:
        span = self._span
        span.set_attribute("rpc.response.status_code", code)
        span.set_attribute("gpt2flow.request_id", call.request_id)
        if code in _SERVER_ERRORS:
            span.set_attribute("error.type", code)
            span.set_status(Status(StatusCode.ERROR))
        if call.model:
            self._note_model(call)
        for i, result in enumerate(call.results[:_MAX_PROMPTS]):
            self._add_phases(i, result)

    def _note_model(self, call: Call) -> None:
        """Say which model did what, as https://opentelemetry.io/docs/specs/semconv/gen-ai/."""
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
        """Add what one prompt's time went to, as spans one after the other."""
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
