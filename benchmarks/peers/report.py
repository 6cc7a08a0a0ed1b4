"""Writes what a run came to: JSON with every sample, Markdown, and a plot."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peers.figures import GOALS, figure, overhead, reached
from peers.measurements import Measurement
from peers.plot import svg
from peers.session import Result
from peers.table import markdown


def write_report(
    folder: Path,
    results: Sequence[Result],
    measurements: Sequence[Measurement],
    machine: dict[str, Any],
    settings: dict[str, Any],
) -> str:
    """Write `peers.json`, `peers.md` and `peers.svg`; returns the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {
        "machine": machine,
        "settings": settings,
        "engines": {result.engine.key: _engine(results, result) for result in results},
    }
    text = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
    (folder / "peers.json").write_text(text, encoding="utf-8")
    table = markdown(results, measurements, machine, settings)
    (folder / "peers.md").write_text(table, encoding="utf-8")
    caption = f"{machine['processor']}, {settings['threads']} threads, {machine['date']}"
    (folder / "peers.svg").write_text(svg(results, measurements, caption), encoding="utf-8")
    return table


def _engine(results: Sequence[Result], result: Result) -> dict[str, Any]:
    found: dict[str, Any] = {
        "title": result.engine.title,
        "missing": result.missing,
        "failures": result.failures,
        **result.about,
        "figures": {key: asdict(figure(each)) for key, each in result.samples.items()},
        "samples": result.samples,
    }
    if result.engine.key.startswith("gpt2flow"):
        found["goals"] = {goal.title: reached(results, result, goal) for goal in GOALS}
        found["overhead"] = overhead(results, result)
    return found
