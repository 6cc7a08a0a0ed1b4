"""Grafana dashboard of the agent: it shows every exported metric."""

import pytest
from tests.support.dashboards import check_metrics
from tests.support.http_endpoint import RunningEndpoint
from tests.support.outbox import outgoing

from gpt2flow.agent.delivery.observation import DeliveryObserver

pytestmark = pytest.mark.process


def test_the_dashboard_shows_exactly_the_exported_metrics(endpoint: RunningEndpoint) -> None:
    """The metrics of agents and dispatchers are on one dashboard."""
    endpoint.post("a kettle")
    observer = DeliveryObserver()
    with observer.attempt(outgoing(), "webhook") as attempt:
        attempt.succeeded()
    series: dict[str, list[dict[str, str]]] = {}
    for registry in (endpoint.metrics.registry, observer.registry):
        for metric in registry.collect():
            for sample in metric.samples:
                series.setdefault(sample.name, []).append(sample.labels)
    check_metrics("gpt2flow-agent.json", series)
