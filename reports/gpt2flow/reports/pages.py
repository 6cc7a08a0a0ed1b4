"""Pages of reports, which load nothing from a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape

from gpt2flow.reports.charts import BarChart, Chart

_PACKAGE: Final = "gpt2flow.reports"


@dataclass(frozen=True)
class Table:
    """Table of a page.

    Attributes:
        title: Heading.
        columns: Heads of the columns.
        rows: Cells of each row.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


Part = Chart | BarChart | Table


def environment(package: str = _PACKAGE) -> Environment:
    """Return templates of a package, which may extend `page.html.j2`.

    Args:
        package: Package with a folder `templates`.
    """
    packages = dict.fromkeys([package, _PACKAGE])
    return Environment(
        loader=ChoiceLoader([PackageLoader(each) for each in packages]),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render_page(title: str, facts: dict[str, Any], parts: Sequence[Part | None]) -> str:
    """Return a page of charts and tables.

    Args:
        title: Heading.
        facts: What was measured how, by name.
        parts: Charts and tables in order; None is left out.
    """
    return (
        environment()
        .get_template("parts.html.j2")
        .render(title=title, facts=facts, parts=[part for part in parts if part is not None])
    )


def write_page(path: Path, title: str, facts: dict[str, Any], parts: Sequence[Part | None]) -> None:
    """Write a page of charts and tables; arguments as `render_page`.

    Raises:
        OSError: The file cannot be written.
    """
    path.write_text(render_page(title, facts, parts), encoding="utf-8")
