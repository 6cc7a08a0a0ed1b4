"""Report of `gpt2flow bench`, as a table and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gpt2flow.cli.load.figures import LATE_START, LevelFigures
from gpt2flow.cli.load.measurements import Percentiles

# The table needs more than the 80 columns that rich assumes for a pipe.
_PIPE_WIDTH = 160


@dataclass(frozen=True)
class Report:
    """Results of one run.

    Attributes:
        address: Address of the server, as `host:port` or `unix:PATH`.
        model: Name, fingerprint and profile of the model.
        settings: Options of the command line.
        interrupted: True if Ctrl-C ended the run.
        levels: Figures of each level, in order.
    """

    address: str
    model: dict[str, str]
    settings: dict[str, Any]
    interrupted: bool
    levels: Sequence[LevelFigures]

    @property
    def succeeded(self) -> int:
        """Number of successful requests, over all levels."""
        return sum(level.succeeded for level in self.levels)

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def write_html(report: Report, path: Path) -> None:
    """Write charts and tables of a report, for a browser.

    Raises:
        OSError: The file cannot be written.
    """
    from gpt2flow.reports.charts import draw_bars
    from gpt2flow.reports.pages import Table, write_page

    latencies = {
        "Time to first token": [level.ttft_ms for level in report.levels],
        "Inter-token latency": [level.itl_ms for level in report.levels],
        "End-to-end latency": [level.e2e_ms for level in report.levels],
    }
    names = [level.level for level in report.levels]
    charts = [
        draw_bars(
            title,
            {
                f"{name}, {percentile}": None if each is None else getattr(each, percentile)
                for name, each in zip(names, found, strict=True)
                for percentile in ("p50", "p95", "p99")
            },
            note="ms",
            highlighted=[f"{name}, p50" for name in names],
        )
        for title, found in latencies.items()
    ]
    throughput = {level.level: level.output_tokens_per_second for level in report.levels}
    errors = [
        [level.level, status, str(count)]
        for level in report.levels
        for status, count in level.errors.items()
    ]
    parts = [draw_bars("Output tokens a second", throughput, digits=0), *charts]
    given = {"address": report.address, **report.model, **report.settings}
    facts = {name: value for name, value in given.items() if value not in {None, "", False}}
    if report.interrupted:
        facts["interrupted"] = "yes"
    failed = [Table("Errors", ["level", "status", "requests"], errors)] if errors else []
    write_page(path, "Benchmark", facts, [*parts, *failed])


def print_report(report: Report) -> None:
    """Print the table of levels, and warnings about their figures."""
    out = Console(highlight=False)
    if not out.is_terminal:
        out = Console(highlight=False, width=_PIPE_WIDTH)
    out.print(_table(report))
    for level in report.levels:
        for warning in _warnings(level):
            out.print(f"{escape(level.level)}: {escape(warning)}", soft_wrap=True)


def _table(report: Report) -> Table:
    title = f"{report.model['name']} at {report.address}"
    table = Table(
        title=escape(title),
        title_justify="left",
        caption="latencies in ms, p50 / p95 / p99; successful requests only",
        caption_justify="left",
    )
    goodput = any(level.goodput is not None for level in report.levels)
    table.add_column("level", no_wrap=True)
    for column in (
        "ok",
        "failed",
        "TTFT",
        "ITL",
        "E2E",
        "requests/s",
        "output tok/s",
        "prompt tok/s",
    ):
        table.add_column(column, justify="right")
    if goodput:
        table.add_column("goodput/s", justify="right")
    for level in report.levels:
        row = [
            escape(level.level),
            str(level.succeeded),
            str(level.requests - level.succeeded),
            _cell(level.ttft_ms),
            _cell(level.itl_ms),
            _cell(level.e2e_ms),
            f"{level.requests_per_second:.2f}",
            f"{level.output_tokens_per_second:.0f}",
            f"{level.prompt_tokens_per_second:.0f}",
        ]
        table.add_row(*row, *([] if level.goodput is None else [f"{level.goodput:.2f}"]))
    return table


def _cell(values: Percentiles | None) -> str:
    if values is None:
        return "–"
    return " / ".join(
        f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"
        for value in (values.p50, values.p95, values.p99)
    )


def _warnings(level: LevelFigures) -> Iterator[str]:
    if not level.complete:
        yield "interrupted; requests in flight are not counted"
    for status, count in level.errors.items():
        yield f"{count} × {status}: {' '.join(level.details[status].split())}"
    if level.late_starts and level.start_delay_ms:
        worst = level.start_delay_ms.max
        yield (
            f"{level.late_starts} of {level.requests} requests started more than "
            f"{LATE_START * 1000:.0f} ms late, at most {worst:.0f} ms; latencies include the delay"
        )
    generator = level.generator
    if generator.saturated:
        yield (
            f"the load generator was saturated ({generator.cpu_share:.0%} of a core, event loop "
            f"{generator.lag_p99_ms:.0f} ms late at p99, {generator.lag_max_ms:.0f} ms at most): "
            "latencies may be its own"
        )
