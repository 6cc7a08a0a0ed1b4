"""Markdown tables of the figures."""

from collections.abc import Iterator, Sequence
from typing import Any

from peers.measurements import Column, Measurement
from peers.report.figures import (
    GOALS,
    MAX_OVERHEAD,
    evaluate_goal,
    goal_peer,
    median_value,
    overhead,
    ratio,
    share_of_bandwidth,
)
from peers.session import Result

_NONE = "–"


def markdown(
    results: Sequence[Result],
    measurements: Sequence[Measurement],
    machine: dict[str, Any],
    settings: dict[str, Any],
) -> str:
    """Return the whole report: figures with ratios, goals, failures, versions."""
    parts = [
        _figures(results, measurements, machine),
        _goals(results),
        _failures(results),
        _conditions(results, machine, settings),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _figures(
    results: Sequence[Result], measurements: Sequence[Measurement], machine: dict[str, Any]
) -> str:
    columns = [column for measurement in measurements for column in measurement.columns]
    titles = [
        "engine",
        "runs as",
        *(column.title for column in columns),
        "share of bandwidth at ×1",
    ]
    lines = [_row(titles), "|" + "---|" * len(titles)]
    for result in results:
        cells = [_cell(results, result, column) for column in columns]
        share = share_of_bandwidth(result, machine["read_gb_per_second"])
        cells.append(_NONE if share is None else f"{share:.0%}")
        lines.append(_row([result.engine.title, result.engine.kind, *cells]))
    return "\n".join(
        [
            "Medians; in brackets the ratio to the best peer of the column.",
            "",
            *lines,
        ]
    )


def _cell(results: Sequence[Result], result: Result, column: Column) -> str:
    if result.missing is not None:
        return "missing"
    value = median_value(result, column.key)
    if value is None:
        failed = any(column.key.partition("_")[0] == key for key in result.failures)
        return "failed" if failed or (column.key == "first" and "x1" in result.failures) else _NONE
    part = ratio(results, result, column)
    return f"{value:.{column.digits}f}" + (f" ({part:.2f})" if part is not None else "")


def _goals(results: Sequence[Result]) -> str:
    ours = [
        result
        for result in results
        if result.engine.key.startswith("gpt2flow") and result.missing is None
    ]
    if not ours:
        return ""
    titles = ["goal", "limit", *(result.engine.title for result in ours), "best peer"]
    lines = [_row(titles), "|" + "---|" * len(titles)]
    for goal in GOALS:
        peer = goal_peer(results, goal)
        name = peer[1].engine.name if peer else _NONE
        cells = [_verdict(evaluate_goal(results, result, goal)) for result in ours]
        sign = "≥" if goal.higher else "≤"
        lines.append(_row([goal.title, f"{sign} {goal.limit:g}", *cells, name]))
    cells = [_verdict(overhead(results, result)) for result in ours]
    lines.append(_row(["server's overhead at ×1", f"≤ {MAX_OVERHEAD:g}", *cells, "its engine"]))
    return "\n".join(lines)


def _verdict(evaluated: tuple[float, bool] | None) -> str:
    if evaluated is None:
        return _NONE
    number, is_reached = evaluated
    text = f"{number:.0f}" if number >= 100 else f"{number:.2f}"
    return f"{text} {'✓' if is_reached else '✗'}"


def _failures(results: Sequence[Result]) -> str:
    return "\n".join(_reasons(results))


def _reasons(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        if result.missing is not None:
            yield f"- {result.engine.name} is missing: {_line(result.missing)}"
        for key, reason in result.failures.items():
            yield f"- {result.engine.name} failed at {key}: {_line(reason)}"


def _conditions(
    results: Sequence[Result], machine: dict[str, Any], settings: dict[str, Any]
) -> str:
    versions = {result.about["version"]: None for result in results if result.about.get("version")}
    return "\n".join(
        [
            "; ".join(f"{name}: {value}" for name, value in settings.items()) + ".",
            "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in machine.items())
            + ".",
            ", ".join(versions) + ".",
        ]
    )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
