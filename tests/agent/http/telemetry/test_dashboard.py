"""Grafana dashboard of the agent: it shows every exported metric."""

import pytest
from tests.support.dashboards import check_metrics
from tests.support.http_endpoint import RunningEndpoint

pytestmark = pytest.mark.process


def test_the_dashboard_shows_exactly_the_exported_metrics(endpoint: RunningEndpoint) -> None:
    endpoint.post("a kettle")
    series: dict[str, list[dict[str, str]]] = {}
    for metric in endpoint.metrics.registry.collect():
        for sample in metric.samples:
            series.setdefault(sample.name, []).append(sample.labels)
    check_metrics("gpt2flow-agent.json", series)
