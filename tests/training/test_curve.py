"""Curve of a run as a CSV file."""

import csv
from pathlib import Path

from gpt2flow.training.curve import record_curve
from gpt2flow.training.model.evaluation import Evaluation
from gpt2flow.training.model.loop import StepReport


def report(step: int, *, evaluated: bool = False) -> StepReport:
    evaluation = Evaluation(loss=0.5, perplexity=1.65, first_actions=0.25, turns=None)
    return StepReport(step, 100, 1.0 / step, 0.001, 2000.0, evaluation, evaluated)


def steps(path: Path) -> list[int]:
    with path.open(encoding="utf-8", newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_every_tenth_step_and_every_evaluation_has_a_row(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    record = record_curve(path)
    for step in range(1, 101):
        record(report(step, evaluated=step == 35))
    assert steps(path) == [10, 20, 30, 35, 40, 50, 60, 70, 80, 90, 100]
    with path.open(encoding="utf-8", newline="") as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file)}
    assert rows[35] == {
        "step": "35",
        "loss": "0.02857",
        "learning_rate": "0.001",
        "tokens_per_second": "2000",
        "valid_loss": "0.50000",
        "valid_first_actions": "0.25000",
        "valid_turns": "",
    }
    assert rows[40]["valid_loss"] == ""


def test_a_resumed_run_replaces_the_rows_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    first = record_curve(path)
    for step in range(1, 41):
        first(report(step))
    resumed = record_curve(path)
    for step in range(21, 31):
        resumed(report(step))
    assert steps(path) == [10, 20, 30]
