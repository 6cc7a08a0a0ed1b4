"""Report of a run: JSON with every sample, Markdown and a plot."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peers.measurements import Measurement
from peers.report.figures import GOALS, evaluate_goal, overhead, summarize
from peers.report.plot import write_plots
from peers.report.table import markdown
from peers.session import Result


def write_report(
    folder: Path,
    results: Sequence[Result],
    measurements: Sequence[Measurement],
    machine: dict[str, Any],
    settings: dict[str, Any],
) -> str:
    """Write `peers.json`, `peers.md` and `peers.html`, and return the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    report = {
        "machine": machine,
        "settings": settings,
        "engines": {result.engine.key: _engine_record(results, result) for result in results},
    }
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    (folder / "peers.json").write_text(text, encoding="utf-8")
    table = markdown(results, measurements, machine, settings)
    (folder / "peers.md").write_text(table, encoding="utf-8")
    write_plots(folder / "peers.html", results, measurements, {**machine, **settings})
    return table


def _engine_record(results: Sequence[Result], result: Result) -> dict[str, Any]:
    record: dict[str, Any] = {
        "title": result.engine.title,
        "kind": result.engine.kind,
        "missing": result.missing,
        "failures": result.failures,
        **result.about,
        "figures": {key: asdict(summarize(samples)) for key, samples in result.samples.items()},
        "samples": result.samples,
    }
    if result.engine.key.startswith("gpt2flow"):
        record["goals"] = {goal.title: evaluate_goal(results, result, goal) for goal in GOALS}
        record["overhead"] = overhead(results, result)
    return record
