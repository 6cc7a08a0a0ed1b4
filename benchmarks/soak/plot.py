"""Line chart of the samples as plain SVG, drawn without a library."""

import math
from collections.abc import Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape

from soak.samples import Sample

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 640, 70, 70, 30, 28
_COLOURS: Final = ("#c2410c", "#64748b")
PANELS: Final = (
    ("requests a second", ("requests",)),
    ("a request, p99 and p50 (ms)", ("p99_ms", "p50_ms")),
    ("first token, p99 and p50 (ms)", ("first_p99_ms", "first_p50_ms")),
    ("resident memory (MB)", ("rss_mb",)),
    ("descriptors and threads", ("descriptors", "threads")),
    ("tasks", ("tasks",)),
)


def render_svg(samples: Sequence[Sample], caption: str) -> str:
    """Draw every figure over time, from zero, one panel each."""
    height = _TOP + len(PANELS) * (_HEIGHT + _GAP) + 10
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 20} {height}" '
            'font-family="sans-serif" font-size="11">'
        ),
        f'<rect width="{_LEFT + _WIDTH + 20}" height="{height}" fill="white"/>',
        _text(8, 14, caption, "start"),
    ]
    for index, (title, names) in enumerate(PANELS):
        parts += _panel(samples, title, names, _TOP + index * (_HEIGHT + _GAP))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(samples: Sequence[Sample], title: str, names: Sequence[str], top: int) -> Iterator[str]:
    lines = [[float(getattr(sample, name)) for sample in samples] for name in names]
    largest = max((y for line in lines for y in line if not math.isnan(y)), default=1.0) or 1.0
    last = samples[-1].at
    bottom = top + 14 + _HEIGHT
    yield _text(_LEFT, top + 9, title, "start")
    yield _text(_LEFT - 6, top + 24, f"{largest:.4g}", "end")
    yield _text(_LEFT - 6, bottom, "0", "end")
    yield _text(_LEFT + _WIDTH, bottom + 12, f"{last / 60:.1f} min", "end")
    yield f'<path d="M{_LEFT} {top + 14}V{bottom}H{_LEFT + _WIDTH}" fill="none" stroke="#cbd5e1"/>'
    for line, colour in zip(lines, _COLOURS, strict=False):
        points = " ".join(
            f"{_LEFT + sample.at / last * _WIDTH:.1f},{bottom - y / largest * _HEIGHT:.1f}"
            for sample, y in zip(samples, line, strict=True)
            if not math.isnan(y)
        )
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" fill="#334155" text-anchor="{anchor}">{escape(text)}</text>'
