"""Grafana dashboards of the project, and what their expressions name."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tests.support.project import PROJECT

FOLDER = PROJECT / "deploy" / "grafana"
_SUFFIX = re.compile("_(total|created|sum|count|bucket)$")
_METRIC = re.compile(r"\b(?:gpt2flow|process)_[a-z0-9_]+")

# Label sets of each series, by the name of the sample.
Series = Mapping[str, Iterable[Mapping[str, str]]]


def dashboards() -> list[str]:
    """Return the names of the files of all dashboards."""
    return sorted(path.name for path in FOLDER.glob("*.json"))


def dashboard(name: str) -> dict[str, Any]:
    """Return the content of a dashboard."""
    content: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return content


def expressions(name: str) -> list[str]:
    """Return the expressions of all panels and variables of a dashboard."""
    content = dashboard(name)
    targets = [target["expr"] for panel in content["panels"] for target in panel.get("targets", [])]
    variables = [each for each in content["templating"]["list"] if each["type"] == "query"]
    return targets + [variable["query"]["query"] for variable in variables]


def check_metrics(name: str, series: Series) -> None:
    """Check that a dashboard shows exactly the exported, documented metrics.

    Args:
        name: Name of the dashboard's file.
        series: All exported series.
    """
    given = expressions(name)
    shown = {metric for expression in given for metric in _METRIC.findall(expression)}
    assert shown <= series.keys()
    exported = {_SUFFIX.sub("", each) for each in series if each.startswith("gpt2flow_")}
    assert {_SUFFIX.sub("", each) for each in shown if each.startswith("gpt2flow_")} == exported
    documented = (PROJECT / "docs/observability.md").read_text(encoding="utf-8")
    assert [each for each in exported if f"`{each}" not in documented] == []
    for expression in given:
        # Matchers in braces may only use labels that the metric has.
        for metric, matchers in re.findall(r"([a-z0-9_]+)\{([^}]*)\}", expression):
            existing = {label for labels in series[metric] for label in labels} | {"job"}
            assert set(re.findall(r"(\w+)=", matchers)) <= existing, expression
