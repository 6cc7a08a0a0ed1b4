"""Bar chart of the figures as plain SVG, drawn without a library.

Each column is a panel, and each engine a bar.
"""

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from peers.measurements import Column, Measurement
from peers.report.figures import median_value
from peers.session import Result

_PANEL, _NAMES, _ROW, _TOP, _GAP = 190, 240, 18, 46, 14
_OURS, _PEERS = "#c2410c", "#64748b"


def render_svg(results: Sequence[Result], measurements: Sequence[Measurement], caption: str) -> str:
    """Draw all columns side by side, with peers in another colour."""
    columns = [column for measurement in measurements for column in measurement.columns]
    shown = [result for result in results if result.missing is None]
    width = _NAMES + len(columns) * (_PANEL + _GAP)
    height = _TOP + len(shown) * _ROW + 26
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'font-family="sans-serif" font-size="11">'
        ),
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for row, result in enumerate(shown):
        colour = _PEERS if result.engine.is_peer else _OURS
        parts.append(_text(_NAMES - 8, _baseline(row), result.engine.name, colour, "end"))
    for index, column in enumerate(columns):
        parts += _panel(shown, column, _NAMES + index * (_PANEL + _GAP))
    parts += [_text(8, height - 8, caption, "#334155", "start"), "</svg>"]
    return "\n".join(parts) + "\n"


def _panel(results: Sequence[Result], column: Column, left: int) -> Iterator[str]:
    values = [median_value(result, column.key) for result in results]
    largest = max((value for value in values if value is not None), default=1.0) or 1.0
    yield _text(left, 18, column.title, "#0f172a", "start")
    better = "higher is better" if column.higher else "lower is better"
    yield _text(left, 34, better, "#94a3b8", "start")
    for row, (result, value) in enumerate(zip(results, values, strict=True)):
        if value is None:
            yield _text(left, _baseline(row), "–", "#94a3b8", "start")
            continue
        length = max(value / largest * (_PANEL - 48), 1)
        colour = _PEERS if result.engine.is_peer else _OURS
        top = _TOP + row * _ROW + 2
        yield (
            f'<rect x="{left}" y="{top}" width="{length:.1f}" height="{_ROW - 5}" fill="{colour}"/>'
        )
        shown = f"{value:.{column.digits}f}"
        yield _text(left + round(length) + 4, _baseline(row), shown, "#334155", "start")


def _baseline(row: int) -> int:
    return _TOP + row * _ROW + 12


def _text(x: int, y: int, text: str, colour: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" fill="{colour}" text-anchor="{anchor}">{escape(text)}</text>'
