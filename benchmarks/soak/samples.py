"""Samples of a server over time, and the growth of its resources."""

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

# Growth limits of the resources whose use does not depend on load. A limit is the larger of a share
# of the median and an absolute amount.
LIMITS: Final = {
    "rss_mb": (0.05, 5.0),
    "descriptors": (0.05, 4.0),
    "threads": (0.05, 2.0),
}
# Share of the samples that is ignored at the start, since caches and pools fill.
_WARM_UP: Final = 0.25
_MIN_SAMPLES: Final = 8


@dataclass(frozen=True)
class Sample:
    """Requests of one interval, and the server's resources at its end.

    Attributes:
        at: End of the interval, in seconds since the start.
        requests: Completed requests per second.
        p50_ms: Median request time; NaN without requests.
        p99_ms: 99th percentile of the request time.
        first_p50_ms: Median time to first token of the streams.
        first_p99_ms: 99th percentile of the time to first token.
        rss_mb: Resident memory, in 10^6 bytes.
        descriptors: Open file descriptors.
        threads: Number of threads.
        tasks: Number of event-loop tasks.
        codes: Number of requests by status code.
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


def take_sample(
    at: float, interval: float, records: Sequence[dict[str, Any]], pid: int, port: int
) -> Sample:
    """Return the sample of an interval.

    Args:
        at: End of the interval, in seconds since the start.
        interval: Length of the interval, in seconds.
        records: Requests that completed in it.
        pid: Process id of the server.
        port: Port of its metrics.
    """
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
        tasks=int(read_metric(port, "tasks")),
        codes=dict(Counter(record["code"] for record in records)),
    )


def read_metric(port: int, name: str) -> float:
    """Return the value of one of the server's metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
        text = response.read().decode()
    match = re.search(rf"^gpt2flow_{name}(?:{{.*}})? (.+)$", text, re.MULTILINE)
    if match is None:
        raise RuntimeError(f"the server has no metric {name}")
    return float(match[1])


def percentile(values: Sequence[float], fraction: float) -> float:
    """Return the nearest-rank percentile of the values, NaN without values."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(fraction * len(values)) - 1)]


def growth(samples: Sequence[Sample], name: str) -> tuple[float, float]:
    """Return the growth of a resource after the warm-up, and its limit.

    The growth is the Theil–Sen slope times the time between the first and the last sample. The
    slope is the median of the slopes between all pairs of samples, which single peaks do not move.
    With too few samples the growth is 0 and the limit infinite.
    """
    kept = samples[int(len(samples) * _WARM_UP) :]
    if len(kept) < _MIN_SAMPLES:
        return 0.0, math.inf
    values = [float(getattr(sample, name)) for sample in kept]
    points = zip((sample.at for sample in kept), values, strict=True)
    slope = statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2))
    share, amount = LIMITS[name]
    limit = max(share * statistics.median(values), amount)
    return slope * (kept[-1].at - kept[0].at), limit
