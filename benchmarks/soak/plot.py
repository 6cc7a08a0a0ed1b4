"""Plots of the samples, on a page that opens in a browser."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from soak.samples import Sample

from gpt2flow.reports.charts import Chart, draw_chart
from gpt2flow.reports.pages import write_page

PANELS: Final = {
    "Requests a second": ("requests",),
    "A request, in ms": ("p99_ms", "p50_ms"),
    "First token, in ms": ("first_p99_ms", "first_p50_ms"),
    "Resident memory, in MB": ("rss_mb",),
    "Descriptors and threads": ("descriptors", "threads"),
    "Tasks": ("tasks",),
}


def write_plots(path: Path, samples: Sequence[Sample], facts: dict[str, Any]) -> None:
    """Write every figure over time, a chart each.

    Args:
        path: HTML file to write.
        samples: Samples in order.
        facts: What was measured how, by name.
    """
    charts = [_chart(title, names, samples) for title, names in PANELS.items()]
    write_page(path, "Soak", facts, charts)


def _chart(title: str, names: Sequence[str], samples: Sequence[Sample]) -> Chart | None:
    series = {
        name: [
            (sample.at, float(getattr(sample, name)))
            for sample in samples
            # Intervals without requests have no times.
            if not math.isnan(getattr(sample, name))
        ]
        for name in names
    }
    return draw_chart(f"{title}, by seconds", series)
