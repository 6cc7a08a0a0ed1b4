"""Bar charts of the figures, on a page for a browser."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers.measurements import Column, Measurement
from peers.report.figures import median_value
from peers.session import Result

from gpt2flow.reports.charts import BarChart, draw_bars
from gpt2flow.reports.pages import write_page


def write_plots(
    path: Path,
    results: Sequence[Result],
    measurements: Sequence[Measurement],
    facts: dict[str, Any],
) -> None:
    """Write a chart for each column, whose bars are the engines.

    Args:
        path: HTML file to write.
        results: Results of the engines.
        measurements: What was measured.
        facts: Machine and settings, by name.
    """
    shown = [result for result in results if result.missing is None]
    columns = [column for measurement in measurements for column in measurement.columns]
    write_page(path, "Peers", facts, [_chart(column, shown) for column in columns])


def _chart(column: Column, results: Sequence[Result]) -> BarChart | None:
    return draw_bars(
        column.title,
        {result.engine.name: median_value(result, column.key) for result in results},
        note="higher is better" if column.higher else "lower is better",
        digits=column.digits,
        highlighted=[result.engine.name for result in results if not result.engine.is_peer],
    )
