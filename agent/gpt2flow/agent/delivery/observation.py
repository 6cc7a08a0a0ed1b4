"""Log line, metrics and span of each attempt to send a message."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from sqlalchemy import URL

from gpt2flow.agent.config import Clock, check_otlp_endpoint, utc_now
from gpt2flow.agent.delivery.message import DeliveryError, OutgoingMessage
from gpt2flow.agent.metrics.gauges import DatabaseGauges
from gpt2flow.agent.metrics.reader import ShopReader
from gpt2flow.agent.metrics.registry import PREFIX, serving_metrics
from gpt2flow.agent.net.addresses import parse_address
from gpt2flow.agent.telemetry.spans import (
    Attributes,
    Span,
    Tracer,
    current_span,
    open_tracer,
    trace_id,
)
from gpt2flow.web.metrics import new_registry

AttemptResult = Literal["sent", "failed", "dead"]

_HOUR: Final = 3600.0
# From half a second to the day after which a message is dead.
_SECONDS: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, _HOUR, 6 * _HOUR, 24 * _HOUR)


class DeliveryObserver:
    """Observer of one dispatcher, with which counters start at 0.

    Args:
        tracer: Source of spans, one an attempt.
        clock: Source of the current time, from which ages of messages are computed.

    Attributes:
        registry: Registry of the metrics.
    """

    def __init__(self, tracer: Tracer | None = None, clock: Clock = utc_now) -> None:
        self.registry: CollectorRegistry = new_registry()
        self._tracer = tracer or Tracer()
        self._clock = clock
        self._attempts = Counter(
            f"{PREFIX}_delivery_attempts",
            "Attempts to send a message, by transport and result",
            ("transport", "result"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            f"{PREFIX}_delivery_seconds",
            "Time from the creation of a message to its sending",
            registry=self.registry,
            buckets=_SECONDS,
        )

    @contextmanager
    def attempt(self, message: OutgoingMessage, transport: str) -> Iterator["Attempt"]:
        """Record the block as an attempt, in the trace of the message.

        Args:
            message: Message to send.
            transport: Name of its transport.
        """
        attributes: Attributes = {
            "gpt2flow.key": message.key,
            "gpt2flow.transport": transport,
            "gpt2flow.attempt": message.attempts + 1,
        }
        with (
            self._tracer.resumed(message.trace or ""),
            self._tracer.span("delivery", attributes, is_call=True) as span,
        ):
            yield Attempt(self, message, transport, span)

    def count(self, transport: str, result: AttemptResult) -> None:
        """Count an attempt that has ended."""
        self._attempts.labels(transport, result).inc()

    def measure_age(self, message: OutgoingMessage) -> float:
        """Record the age of a sent message, and return it in seconds."""
        # The clock of the process that wrote the message may be ahead.
        seconds = max(0.0, (self._clock() - message.created_at).total_seconds())
        self._seconds.observe(seconds)
        return seconds


@dataclass(frozen=True)
class Attempt:
    """Attempt to send a message; a method records its result."""

    _observer: DeliveryObserver
    _message: OutgoingMessage
    _transport: str
    _span: Span

    def succeeded(self) -> None:
        """Record that the receiver has taken the message."""
        seconds = self._observer.measure_age(self._message)
        self._end("sent", seconds=round(seconds, 1))

    def failed(self, error: DeliveryError, wait: timedelta | None, *, limit: int) -> None:
        """Record that the receiver has not taken the message.

        Args:
            error: Reason of the failure.
            wait: Time until the next attempt; None if the message is dead.
            limit: Number of attempts after which a message is dead.
        """
        retry = {} if wait is None else {"retry_seconds": round(wait.total_seconds())}
        self._end("dead" if wait is None else "failed", reason=str(error), attempts=limit, **retry)

    def _end(self, result: AttemptResult, **more: Any) -> None:
        self._observer.count(self._transport, result)
        self._span.set({"gpt2flow.result": result})
        trace = current_span() or self._message.trace
        log = structlog.get_logger()
        (log.info if result == "sent" else log.warning)(
            "delivery",
            key=self._message.key,
            transport=self._transport,
            attempt=self._message.attempts + 1,
            result=result,
            **more,
            **({"trace_id": trace_id(trace)} if trace else {}),
        )


@dataclass(frozen=True)
class ObservationSettings:
    """Where an operator sees the attempts, beside the log.

    Attributes:
        metrics_address: Address of the Prometheus endpoint, as `host:port`; None opens none.
        otlp_endpoint: Collector of traces, as `http://host:port`; None exports none.
    """

    metrics_address: str | None = None
    otlp_endpoint: str | None = None

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
            InputError: An address has another form.
        """
        check_otlp_endpoint(self.otlp_endpoint)
        if self.metrics_address is not None:
            parse_address(self.metrics_address, "metrics_address")


@contextmanager
def observing(
    url: URL, settings: ObservationSettings, clock: Clock = utc_now
) -> Iterator[DeliveryObserver]:
    """Open the metrics endpoint and the export of traces of a dispatcher.

    Args:
        url: URL of the database.
        settings: Addresses of both.
        clock: Source of the current time.

    Raises:
        ListenError: The address of the metrics cannot be bound.
        AgentError: A package that traces need is missing.
    """
    with ExitStack() as resources:
        tracer = open_tracer(settings.otlp_endpoint, "gpt2flow-dispatcher")
        resources.callback(tracer.close)
        observer = DeliveryObserver(tracer, clock)
        if (address := settings.metrics_address) is not None:
            reader = ShopReader(url)
            resources.callback(reader.close)
            observer.registry.register(DatabaseGauges(reader, clock))
            port = resources.enter_context(serving_metrics(address, observer.registry))
            structlog.get_logger().info("ready", metrics_port=port)
        yield observer
