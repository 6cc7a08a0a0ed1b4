"""Files that an evaluation writes: JUnit XML and an HTML page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from jinja2 import Environment, PackageLoader

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.evaluation.play import Playthrough
from gpt2flow.agent.evaluation.summary import transcript


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
    environment = Environment(loader=PackageLoader("gpt2flow.agent.evaluation"), autoescape=True)
    page = environment.get_template("page.html.j2").render(
        figures=figures,
        groups=[name for name in figures if name.startswith("by_")],
        conversations=[
            {"result": result, "lines": transcript(result)}
            for result in sorted(results, key=lambda each: (each.passed, not each.harm))
        ],
    )
    _write(path, page)


def _printable(text: str) -> str:
    """Return the text without characters that XML cannot hold."""
    return "".join(c for c in text if c.isprintable() or c == "\n")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
