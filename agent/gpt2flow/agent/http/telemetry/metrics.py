"""Metrics of turns and requests, in a registry of the process."""

from collections.abc import Callable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from gpt2flow.agent.metrics.registry import PREFIX
from gpt2flow.agent.report import TurnReport
from gpt2flow.web.metrics import new_registry

# From 10 milliseconds to 5 minutes.
_SECONDS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0)


class TurnMetrics:
    """Metrics of one process; counters start at 0 with it.

    Attributes:
        registry: Registry of all metrics.
    """

    def __init__(self) -> None:
        self.registry = new_registry()
        self._turns = self._counter("turns", "Turns that ended, by result", "result")
        self._turn_seconds = Histogram(
            f"{PREFIX}_turn_seconds",
            "Duration of turns with a report, repeated messages apart",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._call_seconds = Histogram(
            f"{PREFIX}_model_call_seconds",
            "Duration of the model calls of turns with a report",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._actions = self._counter(
            "actions", "Actions of turns with a report, events included", "action", "result"
        )
        self._requests = self._counter(
            "http_requests", "HTTP requests that were answered", "route", "status"
        )

    def observe_queue(self, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Add gauges of the turns that run and wait."""
        for state, read in (("running", running), ("waiting", waiting)):
            gauge = Gauge(
                f"{PREFIX}_turns_{state}", f"Turns that are {state}", registry=self.registry
            )
            gauge.set_function(read)

    def ended(self, report: TurnReport, seconds: float) -> None:
        """Record a turn with a report.

        Args:
            report: Report of the turn.
            seconds: Duration of the turn.
        """
        self._turns.labels(report.result).inc()
        self._turn_seconds.observe(seconds)
        for call in report.calls:
            self._call_seconds.observe(call.milliseconds / 1000)
        event_actions = [action for event in report.events for action in event.actions]
        for action in (*report.actions, *event_actions):
            self._actions.labels(action.action, action.result).inc()

    def failed(self, result: str) -> None:
        """Record a turn without a report, or one that was recorded before."""
        self._turns.labels(result).inc()

    def answered(self, route: str, status: int) -> None:
        """Record an answered request."""
        self._requests.labels(route, str(status)).inc()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, labels, registry=self.registry)
