"""Metrics endpoint of a running server, scraped and parsed."""

import asyncio
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from tests.support.running_server import RunningServer

LOOPBACK = ("127.0.0.1", 0)


@dataclass
class Scrape:
    """Parsed answer of the metrics endpoint.

    Attributes:
        samples: Labels and value of each series, per sample name.
    """

    samples: dict[str, list[tuple[Mapping[str, str], float]]]

    def get(self, name: str, **labels: str) -> float:
        """Return the sum of all series with these labels, or 0."""
        return sum(
            value
            for found, value in self.samples.get(f"gpt2flow_{name}", [])
            if labels.items() <= found.items()
        )

    def labels(self, name: str, label: str) -> set[str]:
        """Return all values of a label of a metric."""
        return {found[label] for found, _ in self.samples.get(f"gpt2flow_{name}", [])}


def fetch(port: int) -> str:
    """Return the text of the metrics endpoint."""
    # A proxy of the environment must not see requests to this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
        text: str = response.read().decode()
    return text


async def scrape(running: RunningServer) -> Scrape:
    """Fetch and parse the metrics of a server."""
    port = running.server.metrics_port
    assert port is not None
    samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in text_string_to_metric_families(await asyncio.to_thread(fetch, port)):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return Scrape(samples)


async def until_counted(running: RunningServer, count: int, **labels: str) -> Scrape:
    """Scrape until `count` RPCs are counted.

    The server counts an RPC only after its client has the answer.
    """
    while True:
        found = await scrape(running)
        if found.get("rpcs_total", **labels) >= count:
            return found


def sums(usages: list[Any]) -> dict[str, int]:
    """Return the total tokens of several usages, per kind."""
    kinds = ("prompt", "cached", "completion", "forced", "drafted", "accepted")
    return {kind: sum(getattr(usage, f"{kind}_tokens") for usage in usages) for kind in kinds}
