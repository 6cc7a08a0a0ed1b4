"""Curve of a run as a CSV file."""

import csv
from pathlib import Path

from gpt2flow.training.model.loop import ProgressCallback, StepReport

CURVE = "curve.csv"
_COLUMNS = (
    *("step", "loss", "learning_rate", "tokens_per_second"),
    *("valid_loss", "valid_first_actions", "valid_turns"),
)
# Steps between two rows without an evaluation.
_EVERY = 10


def record_curve(path: Path) -> ProgressCallback:
    """Return a callback for `fit` that appends to a CSV file.

    A resumed run drops the rows after the step that it resumes from.

    Args:
        path: CSV file, made if missing.
    """
    is_first = True

    def on_progress(report: StepReport) -> None:
        nonlocal is_first
        if is_first:
            _truncate(path, report.step)
            is_first = False
        if is_recorded(report):
            with path.open("a", encoding="utf-8", newline="") as file:
                csv.writer(file).writerow(_row(report))

    return on_progress


def is_recorded(report: StepReport) -> bool:
    """Return whether a curve has a point at this step."""
    return report.is_evaluated or report.step % _EVERY == 0 or report.step == report.steps


def read_curve(path: Path) -> list[dict[str, float]]:
    """Return the rows of a curve by column, without empty cells."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: float(cell) for name, cell in row.items() if cell}
            for row in csv.DictReader(file)
        ]


def _truncate(path: Path, step: int) -> None:
    """Keep the rows before a step, below the header."""
    rows: list[list[str]] = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if row and row[0].isdecimal()]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        writer.writerows(row for row in rows if int(row[0]) < step)


def _row(report: StepReport) -> list[str]:
    speed = f"{report.tokens_per_second:.0f}"
    row = [str(report.step), f"{report.loss:.5f}", f"{report.learning_rate:.6g}", speed]
    evaluation = report.evaluation if report.is_evaluated else None
    if evaluation is None:
        return [*row, "", "", ""]
    figures = (evaluation.loss, evaluation.first_actions, evaluation.turns)
    return row + ["" if figure is None else f"{figure:.5f}" for figure in figures]
