"""What is seen of a server over time, and whether it grows."""

import math
import re
import statistics
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

# Growth that fails a soak, of what is held however busy the server is: a part, and units.
LIMITS: Final = {
    "rss_mb": (0.05, 5.0),
    "descriptors": (0.05, 4.0),
    "threads": (0.05, 2.0),
}
# The first part of a soak is not judged: caches and pools fill.
_WARM_UP: Final = 0.25
_LEAST_SAMPLES: Final = 8


@dataclass(frozen=True)
class Sample:
    """One interval: what ended in it, and what the server held at its end.

    Attributes:
        at: Seconds since the start.
        requests: Requests that ended, a second.
        p50_ms: Median time of a request; NaN where there was none.
        p99_ms: 99th percentile of it.
        first_p50_ms: Median time to a stream's first token.
        first_p99_ms: 99th percentile of it.
        rss_mb: Resident memory, in 10^6 bytes.
        descriptors: Open file descriptors.
        threads: Threads.
        tasks: Tasks of the event loop.
        codes: Requests by status code.
    """

    at: float
    requests: float
    p50_ms: float
    p99_ms: float
    first_p50_ms: float
    first_p99_ms: float
    rss_mb: float
    descriptors: int
    threads: int
    tasks: int
    codes: dict[str, int]


def take(
    at: float, interval: float, records: Sequence[dict[str, Any]], pid: int, port: int
) -> Sample:
    """Sum up what ended in an interval, and looks at the process and its metrics."""
    times = [record["seconds"] * 1000 for record in records]
    firsts = [record["first_token"] * 1000 for record in records if record["first_token"]]
    folder = Path(f"/proc/{pid}")
    status = dict(
        line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line
    )
    descriptors = sum(1 for _ in (folder / "fd").iterdir())
    return Sample(
        at=at,
        requests=len(records) / interval,
        p50_ms=percentile(times, 0.5),
        p99_ms=percentile(times, 0.99),
        first_p50_ms=percentile(firsts, 0.5),
        first_p99_ms=percentile(firsts, 0.99),
        rss_mb=int(status["VmRSS"].split()[0]) * 1024 / 1e6,
        descriptors=descriptors,
        threads=int(status["Threads"]),
        tasks=int(metric(port, "tasks")),
        codes=dict(Counter(record["code"] for record in records)),
    )


def metric(port: int, name: str) -> float:
    """Ask the server for one of its metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    found = re.search(rf"^gpt2flow_{name}(?:{{.*}})? (.+)$", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"the server has no metric {name}")
    return float(found[1])


def percentile(values: Sequence[float], part: float) -> float:
    """Return the least value that so large a part does not exceed; NaN of none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]


def growth(samples: Sequence[Sample], name: str) -> tuple[float, float]:
    """Return by how much something grew after the warm-up, and by how much it may.

    The growth is the Theil–Sen slope, the median of the slopes between all
    pairs of samples, times the time between the first and the last. Single
    peaks do not move it.
    """
    judged = samples[int(len(samples) * _WARM_UP) :]
    if len(judged) < _LEAST_SAMPLES:
        return 0.0, math.inf
    values = [float(getattr(sample, name)) for sample in judged]
    points = zip((sample.at for sample in judged), values, strict=True)
    slope = statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2))
    part, units = LIMITS[name]
    most = max(part * statistics.median(values), units)
    return slope * (judged[-1].at - judged[0].at), most
