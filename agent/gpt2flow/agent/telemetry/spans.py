"""Spans of the agent and their attributes, recorded only with an exporter."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from gpt2flow.agent.errors import AgentError
from gpt2flow.agent.report import ActionReport, TurnReport

Value = str | bool | int | float | Sequence[str]
# An attribute without a value is left out.
Attributes = Mapping[str, Value | None]
# Set by the tracer that records; `current_span` reads it.
CURRENT_SPAN: Final[ContextVar[str]] = ContextVar("current_span", default="")


class Span:
    """Span that is not recorded."""

    def set(self, attributes: Attributes) -> None:
        """Set attributes."""


class Tracer:
    """Source of spans that records nothing.

    A trace is stored as text: its id in hexadecimal, or the `traceparent` of the span that goes on
    in another process. It is empty without an exporter.

    Attributes:
        has_texts: Whether spans hold the texts of customers and replies.
    """

    has_texts = False

    def new_trace(self) -> str:
        """Return the trace of a new turn.

        It is that of the current span, if there is one.
        """
        return ""

    def current_turn(self) -> str:
        """Return the trace of the current turn, for a later event."""
        return ""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the trace context of the current span as gRPC metadata."""
        return ()

    @contextmanager
    def turn(self, trace: str, attributes: Attributes) -> Iterator[Span]:
        """Record the block as the turn of a trace."""
        del trace, attributes
        yield Span()

    @contextmanager
    def resumed(self, trace: str) -> Iterator[None]:
        """Continue the trace of a turn in the block."""
        del trace
        yield

    @contextmanager
    def span(self, name: str, attributes: Attributes, *, is_call: bool = False) -> Iterator[Span]:
        """Record the block as a part of the current span.

        Args:
            name: Name of the span.
            attributes: Attributes that are known at its start.
            is_call: Whether the block calls another service.
        """
        del name, attributes, is_call
        yield Span()

    def close(self) -> None:
        """Export what is left."""


def open_tracer(endpoint: str | None, service: str, *, has_texts: bool = False) -> Tracer:
    """Return the source of spans that exports to a collector.

    Args:
        endpoint: Address of the collector, as `http://host:port`; None records nothing.
        service: Name of the program in the traces.
        has_texts: Whether spans hold the texts of customers and replies.

    Raises:
        AgentError: A package that traces need is missing.
    """
    if endpoint is None:
        return Tracer()
    try:
        from gpt2flow.agent.telemetry.otlp import OtlpTracer  # noqa: PLC0415 - needs the extra
    except ModuleNotFoundError as error:
        raise AgentError(
            f"traces need the package {error.name!r}: pip install 'gpt2flow[otlp]'"
        ) from error
    return OtlpTracer(endpoint, service, has_texts=has_texts)


def current_span() -> str:
    """Return the `traceparent` of the current span; empty without one."""
    return CURRENT_SPAN.get()


def trace_id(trace: str) -> str:
    """Return the id of a trace in hexadecimal."""
    return trace.split("-")[1] if "-" in trace else trace


def turn_attributes(report: TurnReport, *, has_texts: bool) -> Attributes:
    """Return the attributes of a turn that has ended.

    Args:
        report: Report of the turn.
        has_texts: Whether they hold the texts of the replies.
    """
    return {
        "gpt2flow.result": report.result,
        "gpt2flow.language": report.language,
        "gpt2flow.attended_by": report.attended_by,
        "gpt2flow.replies": report.replies if has_texts else None,
    }


def action_attributes(report: ActionReport) -> Attributes:
    """Return the attributes of an action that was carried out."""
    rows = [f"{each.table}/{','.join(map(str, each.key.values()))}" for each in report.changes]
    return {
        "gpt2flow.action": report.action,
        "gpt2flow.wish": report.wish,
        "gpt2flow.outcome": report.outcome,
        "gpt2flow.asked": report.asked,
        "gpt2flow.result": report.result,
        "gpt2flow.resumed": report.resumed,
        "gpt2flow.rows": rows,
    }
