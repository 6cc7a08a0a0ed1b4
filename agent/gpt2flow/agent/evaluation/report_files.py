"""Files that an evaluation writes: JUnit XML and an HTML page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.evaluation.play import Playthrough
from gpt2flow.agent.evaluation.summary import transcript
from gpt2flow.reports.charts import BarChart, draw_bars
from gpt2flow.reports.pages import environment


def write_junit(path: Path, results: Sequence[Playthrough]) -> None:
    """Write the results as JUnit XML, one test case a playthrough.

    Raises:
        InputError: The file cannot be written.
    """
    failures = sum(not result.passed for result in results)
    suite = ET.Element(
        "testsuite", name="gpt2flow agent evaluate", tests=str(len(results)), failures=str(failures)
    )
    for result in results:
        seconds = sum(report.milliseconds for report in result.reports) / 1000
        case = ET.SubElement(
            suite,
            "testcase",
            classname=_printable(result.scenario.workflow or "scenarios"),
            name=_printable(f"{result.scenario.id}[{result.repeat}]"),
            time=f"{seconds:.3f}",
        )
        if not result.passed:
            failure = ET.SubElement(case, "failure", message=_printable(result.differences[0]))
            failure.text = _printable("\n".join([*result.differences, "", *transcript(result)]))
    _write(path, ET.tostring(suite, encoding="unicode", xml_declaration=True))


def write_html(path: Path, figures: dict[str, Any], results: Sequence[Playthrough]) -> None:
    """Write a page with the figures and the transcript of each conversation.

    Raises:
        InputError: The file cannot be written.
    """
    groups = [name for name in figures if name.startswith("by_")]
    page = (
        environment("gpt2flow.agent.evaluation")
        .get_template("evaluation.html.j2")
        .render(
            figures=figures,
            groups=groups,
            chart=_chart(figures, groups),
            conversations=[
                {"result": result, "lines": transcript(result)}
                for result in sorted(results, key=lambda each: (each.passed, not each.harm))
            ],
        )
    )
    _write(path, page)


def _chart(figures: dict[str, Any], groups: Sequence[str]) -> BarChart | None:
    """Return a chart of the share of conversations that pass, by group."""
    found = {"all": figures} | {
        f"{group.removeprefix('by_')}: {name}": value
        for group in groups
        for name, value in figures[group].items()
    }
    shares = {name: 100 * value["pass^1"]["rate"] for name, value in found.items()}
    return draw_bars("Conversations that pass", shares, note="percent", highlighted=["all"])


def _printable(text: str) -> str:
    """Return the text without characters that XML cannot hold."""
    return "".join(c for c in text if c.isprintable() or c == "\n")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
