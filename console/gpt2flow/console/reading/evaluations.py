"""Evaluation reports in a folder, one beside the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gpt2flow.files.documents import read_json

# Newest reports that are compared.
_MAX_REPORTS: Final = 12
_MAX_BYTES: Final = 5_000_000
_GROUPS: Final = ("by_workflow", "by_language", "by_kind")


@dataclass(frozen=True)
class Report:
    """Report of `gpt2flow agent evaluate --json`.

    Attributes:
        name: Name of its file.
        figures: Figure by name, in the report's order; each is ready to be shown.
    """

    name: str
    figures: dict[str, str]


@dataclass(frozen=True)
class Comparison:
    """Reports side by side.

    Attributes:
        reports: Reports, newest first.
        rows: Name of each figure, with its value in each report; empty where one lacks it.
        unreadable: Files that are no reports, with the reason.
    """

    reports: list[Report]
    rows: list[tuple[str, list[str]]]
    unreadable: dict[str, str]


def compare_reports(folder: Path) -> Comparison:
    """Return the newest reports of a folder."""
    paths = sorted(folder.glob("*.json"), key=_changed, reverse=True)[:_MAX_REPORTS]
    reports, unreadable = [], {}
    for path in paths:
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise ValueError(f"has more than {_MAX_BYTES:,} bytes")  # noqa: TRY301
            reports.append(Report(path.stem, dict(_figures(read_json(path, ValueError)))))
        except (OSError, ValueError) as error:
            unreadable[path.name] = str(error)
    names = list(dict.fromkeys(name for report in reports for name in report.figures))
    rows = [(name, [report.figures.get(name, "") for report in reports]) for name in names]
    return Comparison(reports, rows, unreadable)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _figures(content: Any) -> Sequence[tuple[str, str]]:
    """Return the figures of a report, as text.

    Raises:
        ValueError: The content is no report.
    """
    if not isinstance(content, dict) or "pass^1" not in content:
        raise ValueError("is no report of `gpt2flow agent evaluate --json`")
    found: list[tuple[str, str]] = []
    for name, value in content.items():
        if name in _GROUPS and isinstance(value, dict):
            found += [
                (f"{name.removeprefix('by_')} {key}", _text(each)) for key, each in value.items()
            ]
        elif isinstance(value, int | float | Mapping):
            found.append((name.replace("_", " "), _text(value)))
    return [(name, text) for name, text in found if text]


def _text(value: Any) -> str:
    """Return a figure as text; empty for another structure."""
    text = ""
    match value:
        case {"rate": int() | float() as rate, "low": low, "high": high}:
            text = f"{100 * rate:.1f} % ({100 * low:.1f}–{100 * high:.1f})"
        case {"rate": int() | float() as rate}:
            text = f"{100 * rate:.1f} %"
        case {"pass^1": each}:
            text = _text(each)
        case float():
            text = f"{value:.3f}"
        case int():
            text = f"{value:,}"
    return text
