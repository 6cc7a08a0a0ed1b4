"""Metrics of requests, in a registry of the process."""

from collections.abc import Callable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from gpt2flow.web.metrics import new_registry

_PREFIX: Final = "gpt2flow_gateway"
# From 1 millisecond to 10 minutes.
_SECONDS: Final = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0),
)


class GatewayMetrics:
    """Metrics of one process; counters start at 0 with it.

    Attributes:
        registry: Registry of all metrics.
    """

    def __init__(self) -> None:
        self.registry = new_registry()
        self._requests = Counter(
            f"{_PREFIX}_http_requests",
            "HTTP requests that have ended, by route and status; 499 is a client that left",
            ["route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            f"{_PREFIX}_request_seconds",
            "Duration of requests, from their headers to the last byte of the answer",
            ["route"],
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._first_seconds = Histogram(
            f"{_PREFIX}_first_event_seconds",
            "Time to the first event of a stream",
            ["route"],
            registry=self.registry,
            buckets=_SECONDS,
        )

    def observe_running(self, running: Callable[[], int]) -> None:
        """Add a gauge of the requests that run."""
        gauge = Gauge(
            f"{_PREFIX}_requests_running", "Requests that are running", registry=self.registry
        )
        gauge.set_function(running)

    def ended(self, route: str, status: int, seconds: float) -> None:
        """Record a request that has ended.

        Args:
            route: Path of its route.
            status: Status of its answer.
            seconds: Duration.
        """
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def streamed(self, route: str, seconds: float) -> None:
        """Record the time to the first event of a stream."""
        self._first_seconds.labels(route).observe(seconds)
