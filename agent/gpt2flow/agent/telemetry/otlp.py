"""Export of spans to a collector; requires the extra `otlp`."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span as OpenSpan
from opentelemetry.trace import SpanKind, Status, StatusCode, get_current_span, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gpt2flow.agent.telemetry.spans import CURRENT_SPAN, Attributes, Span, Tracer

# Time limit of exporting a batch, retries included; closing waits for the last one.
_EXPORT_SECONDS: Final = 2.0
_TURN = "turn"
# Trace id of the span that is being started; None picks a new one.
_NEXT_TRACE: ContextVar[int | None] = ContextVar("next_trace", default=None)
# `traceparent` of the turn that the current span belongs to.
_CURRENT_TURN: ContextVar[str] = ContextVar("current_turn", default="")


class OtlpTracer(Tracer):
    """Source of spans with a tracer provider of its own.

    Args:
        endpoint: Address of the collector: `http://host:port` or `https://host:port`. While it
            cannot be reached, spans are lost, and turns do not wait.
        service: Name of the program in the traces, unless the environment has another one.
        has_texts: Whether spans hold the texts of customers and replies.
    """

    def __init__(
        self, endpoint: str, service: str = "gpt2flow-agent", *, has_texts: bool = False
    ) -> None:
        self.has_texts = has_texts
        exporter = OTLPSpanExporter(
            endpoint=endpoint, insecure=endpoint.startswith("http:"), timeout=_EXPORT_SECONDS
        )
        # The environment may override the service name.
        resource = Resource({SERVICE_NAME: service}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(
            resource=resource, id_generator=_TraceIds(), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("gpt2flow.agent")
        self._propagator = TraceContextTextMapPropagator()

    def new_trace(self) -> str:
        """Return the trace of a new turn.

        It is that of the current span, if there is one.
        """
        return self._traceparent() or f"{RandomIdGenerator().generate_trace_id():032x}"

    def current_turn(self) -> str:
        """Return the trace of the current turn, for a later event."""
        return _CURRENT_TURN.get()

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the trace context of the current span as gRPC metadata."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return tuple(carrier.items())

    @contextmanager
    def turn(self, trace: str, attributes: Attributes) -> Iterator[Span]:
        """Record the block as the turn of a trace.

        The trace id was stored with the turn, so that a turn which another process takes over is in
        the same trace.
        """
        if "-" in trace:
            parent = self._propagator.extract({"traceparent": trace})
            started = self._tracer.start_span(_TURN, parent)
        else:
            picked = _NEXT_TRACE.set(int(trace, 16) if trace else None)
            try:
                started = self._tracer.start_span(_TURN, Context())
            finally:
                _NEXT_TRACE.reset(picked)
        with self._recorded(started, attributes) as span:
            before = _CURRENT_TURN.set(self._traceparent())
            try:
                yield span
            finally:
                _CURRENT_TURN.reset(before)

    @contextmanager
    def resumed(self, trace: str) -> Iterator[None]:
        """Continue the trace of a turn in the block."""
        before = _CURRENT_TURN.set(trace)
        attached = attach(self._propagator.extract({"traceparent": trace}, Context()))
        try:
            with self._as_current():
                yield
        finally:
            detach(attached)
            _CURRENT_TURN.reset(before)

    @contextmanager
    def span(self, name: str, attributes: Attributes, *, is_call: bool = False) -> Iterator[Span]:
        """Record the block as a part of the current span."""
        kind = SpanKind.CLIENT if is_call else SpanKind.INTERNAL
        with self._recorded(self._tracer.start_span(name, kind=kind), attributes) as span:
            yield span

    def close(self) -> None:
        """Export what is left; this blocks for a few seconds at most."""
        self._provider.shutdown()

    @contextmanager
    def _recorded(self, started: OpenSpan, attributes: Attributes) -> Iterator[Span]:
        """Make a span current until the block ends it."""
        span = _RecordedSpan(started)
        span.set(attributes)
        # The text of an error may quote a message, so only its class is recorded.
        with use_span(
            started, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            try:
                with self._as_current():
                    yield span
            except Exception as error:
                span.set({"error.type": type(error).__qualname__})
                started.set_status(Status(StatusCode.ERROR))
                raise

    @contextmanager
    def _as_current(self) -> Iterator[None]:
        """Let `current_span` return the current span of OpenTelemetry in the block."""
        before = CURRENT_SPAN.set(self._traceparent())
        try:
            yield
        finally:
            CURRENT_SPAN.reset(before)

    def _traceparent(self) -> str:
        """Return the current span as text; empty without one."""
        if not get_current_span().get_span_context().is_valid:
            return ""
        return dict(self.metadata())["traceparent"]


class _RecordedSpan(Span):
    """Span of OpenTelemetry."""

    def __init__(self, span: OpenSpan) -> None:
        self._span = span

    def set(self, attributes: Attributes) -> None:
        for name, value in attributes.items():
            if value is not None:
                self._span.set_attribute(name, value)


class _TraceIds(RandomIdGenerator):
    """Generator of ids, with the stored trace id of a turn."""

    def generate_trace_id(self) -> int:
        picked = _NEXT_TRACE.get()
        return super().generate_trace_id() if picked is None else picked
