"""Grafana dashboard: shows every exported metric, in well-formed expressions."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.support.project import PROJECT
from tests.support.running_server import (
    PROMPT,
    RunningServer,
    failure,
    greedy,
    server_config,
    serving,
)
from tests.support.scraping import LOOPBACK, until_counted

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server import TelemetryConfig

DASHBOARD: dict[str, Any] = json.loads((PROJECT / "deploy/grafana/gpt2flow.json").read_text())
METRIC = re.compile(r"\b(?:gpt2flow|process)_[a-z0-9_]+")
PAIRS = {")": "(", "]": "[", "}": "{"}


def expressions() -> list[str]:
    """Return the expressions of all panels and variables."""
    targets = [
        target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])
    ]
    variables = [each for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    return targets + [variable["query"]["query"] for variable in variables]


async def traffic(running: RunningServer) -> dict[str, Any]:
    """Serve a stream and a failing call; return all series."""
    options = greedy(30, output=pb.OutputOptions(token_ids=True))
    await running.stream(pb.GenerateStreamRequest(prompt=PROMPT, options=options))
    await failure(running.stub.Generate(pb.GenerateRequest(model="x", prompts=[PROMPT])))
    return dict((await until_counted(running, 2)).samples)


async def test_the_dashboard_shows_exactly_the_exported_metrics(bundle: Path) -> None:
    telemetry = TelemetryConfig(metrics_address=LOOPBACK)
    async with serving(server_config(bundle, telemetry=telemetry)) as running:
        samples = await traffic(running)
    shown = {name for expression in expressions() for name in METRIC.findall(expression)}
    assert shown <= samples.keys()
    suffixes = re.compile("_(total|created|sum|count|bucket)$")
    exported = {suffixes.sub("", name) for name in samples if name.startswith("gpt2flow_")}
    assert {suffixes.sub("", name) for name in shown if name.startswith("gpt2flow_")} == exported
    documented = (PROJECT / "docs/observability.md").read_text(encoding="utf-8")
    for name in exported:
        assert f"`{name}" in documented, name
    for expression in expressions():
        # Matchers in braces may only use labels that the metric has.
        for name, matchers in re.findall(r"([a-z0-9_]+)\{([^}]*)\}", expression):
            existing = {label for labels, _ in samples[name] for label in labels} | {"job"}
            assert set(re.findall(r"(\w+)=", matchers)) <= existing, expression


@pytest.mark.parametrize("expression", expressions())
def test_expressions_are_balanced(expression: str) -> None:
    stack: list[str] = []
    for part in re.sub(r'"[^"]*"', "", expression):
        if part in "([{":
            stack.append(part)
        elif part in PAIRS:
            assert stack, expression
            assert stack.pop() == PAIRS[part], expression
    assert not stack
    assert expression.count('"') % 2 == 0


def test_panels_do_not_overlap_and_have_a_data_source() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [tuple(panel["gridPos"][key] for key in "xy") for panel in panels]
    assert len(set(places)) == len(panels)
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
    names = [each["name"] for each in DASHBOARD["templating"]["list"]]
    assert names == ["datasource", "job", "model"]
