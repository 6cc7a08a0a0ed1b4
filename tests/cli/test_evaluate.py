"""Tests of `gpt2flow agent evaluate`."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from tests.support.command_line import gpt2flow
from tests.support.project import SHIPPED_BUNDLE

SCENARIOS = """
- id: greeting
  workflow: order
  turns: [{text: "hello there"}, {text: "an umbrella, please"}]
- id: miss
  workflow: order
  turns: [{text: "hello there"}]
  expect: {facts: ["no message of the agent has this text"]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good.yaml").write_text(SCENARIOS, encoding="utf-8")
    (tmp_path / "bad.yaml").write_text("- {id: x, turns: [", encoding="utf-8")
    (tmp_path / "typo.yaml").write_text("- {id: x, turn: []}", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "Missing option '--scenarios'"),
        (["--scenarios", "nowhere.yaml"], "nowhere.yaml: [Errno 2] No such file"),
        (["--scenarios", "bad.yaml"], "bad.yaml: while parsing a flow"),
        (["--scenarios", "typo.yaml"], "typo.yaml: field 0.turn: Extra inputs are not permitted"),
        (["--scenarios", "empty"], "empty: no scenario file found, expected *.yaml"),
        (["--scenarios", "good.yaml", "--scenarios", "nowhere"], "nowhere: [Errno 2] No such file"),
        (["--scenarios", "good.yaml", "--model", "empty"], "empty is no bundle; pass --model DIR"),
        (["--scenarios", "good.yaml"], "models/shop is no bundle; pass --model DIR"),
        (["--scenarios", "good.yaml", "--flows", "nowhere"], "nowhere"),
        (
            ["--scenarios", "good.yaml", "--junit", "nowhere/x.xml"],
            "nowhere/x.xml: the directory does not exist",
        ),
        (
            ["--scenarios", "good.yaml", "--html", "nowhere/x.html"],
            "nowhere/x.html: the directory does not exist",
        ),
        (["--scenarios", "good.yaml", "--repeats", "0"], "Invalid value for '--repeats'"),
        (["--scenarios", "good.yaml", "--confirm-below", "2"], "for '--confirm-below'"),
    ],
)
def test_a_mistake_is_reported_on_one_line(
    arguments: list[str], message: str, folder: Path
) -> None:
    code, out, err = gpt2flow("agent", "evaluate", *arguments, cwd=folder)
    assert (code, out) == (2, "")
    assert err.startswith("gpt2flow: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_help_describes_the_command() -> None:
    code, out, err = gpt2flow("agent", "evaluate", "--help")
    assert (code, err) == (0, "")
    for option in ("--scenarios", "--repeats", "--seed", "--confirm-below", "--junit", "--html"):
        assert option in out


def test_figures_are_printed_as_json_and_written_to_files(folder: Path) -> None:
    files = ("--junit", "results.xml", "--html", "results.html")
    arguments = ("--scenarios", "good.yaml", "--model", str(SHIPPED_BUNDLE), "--repeats", "2")
    code, out, err = gpt2flow("agent", "evaluate", *arguments, "--json", *files, cwd=folder)
    assert code == 0, err
    figures = json.loads(out)
    assert list(figures) == [
        *("scenarios", "repeats", "pass^1", "pass^2", "by_workflow", "by_language", "by_kind"),
        *("harm", "questions", "needless_questions", "escalation_rate", "illegal_action_rate"),
        *("milliseconds", "coverage", "misses", "harms"),
    ]
    assert set(figures["pass^1"]) == set(figures["pass^2"]) == {"rate", "low", "high"}
    assert set(figures["by_workflow"]["order"]) == {"scenarios", "pass^1", "pass^2"}
    assert (figures["scenarios"], figures["repeats"]) == (2, 2)
    assert {miss["id"] for miss in figures["misses"]} >= {"miss"}
    suite = ET.parse(folder / "results.xml").getroot()  # noqa: S314 - our own file
    names = [case.get("name") for case in suite]
    assert names == ["greeting[0]", "greeting[1]", "miss[0]", "miss[1]"]
    assert "greeting [1]" in (folder / "results.html").read_text(encoding="utf-8")


def test_table_has_a_row_per_group_and_misses_on_request(address: str, folder: Path) -> None:
    arguments = ("--scenarios", "good.yaml", "--address", address, "--model", "shop")
    code, out, _ = gpt2flow("agent", "evaluate", *arguments, cwd=folder)
    assert code == 0
    assert "workflow: order" in out
    assert "miss repeat 0" in out
    assert "no message contains" in out
    code, out, _ = gpt2flow("agent", "evaluate", *arguments, "--no-misses", cwd=folder)
    assert code == 0
    assert "workflow: order" in out
    assert "miss repeat 0" not in out
