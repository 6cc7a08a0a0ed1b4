"""Grafana dashboards: well-formed expressions, and panels in their places."""

import re

import pytest
from tests.support.dashboards import dashboard, dashboards, expressions

PAIRS = {")": "(", "]": "[", "}": "{"}
VARIABLES = {
    "gpt2flow.json": ["datasource", "job", "model"],
    "gpt2flow-agent.json": ["datasource", "job"],
}


@pytest.mark.parametrize(
    "expression", [each for name in dashboards() for each in expressions(name)]
)
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


@pytest.mark.parametrize("name", dashboards())
def test_panels_do_not_overlap_and_have_a_data_source(name: str) -> None:
    panels = dashboard(name)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [tuple(panel["gridPos"][key] for key in "xy") for panel in panels]
    assert len(set(places)) == len(panels)
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"


def test_each_dashboard_has_its_name_and_variables() -> None:
    contents = {name: dashboard(name) for name in dashboards()}
    assert {f"{content['uid']}.json" for content in contents.values()} == set(contents)
    found = {
        name: [each["name"] for each in content["templating"]["list"]]
        for name, content in contents.items()
    }
    assert found == VARIABLES
