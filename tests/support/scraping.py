"""What tests ask a server's telemetry."""

import asyncio
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from tests.support.running_server import Running

LOOPBACK = ("127.0.0.1", 0)


@dataclass
class Scrape:
    """What the endpoint said."""

    samples: dict[str, list[tuple[Mapping[str, str], float]]]

    def get(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's series with these labels; 0 without any."""
        return sum(
            value
            for found, value in self.samples.get(f"gpt2flow_{name}", [])
            if labels.items() <= found.items()
        )

    def labels(self, name: str, label: str) -> set[str]:
        return {found[label] for found, _ in self.samples.get(f"gpt2flow_{name}", [])}


def fetch(port: int) -> str:
    # No proxy of the environment stands before this machine itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        text: str = response.read().decode()
    return text


async def scrape(running: Running) -> Scrape:
    port = running.server.metrics_port
    assert port is not None
    samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in text_string_to_metric_families(await asyncio.to_thread(fetch, port)):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return Scrape(samples)


async def until_counted(running: Running, count: int, **labels: str) -> Scrape:
    """Scrape until so many RPCs have ended: a client hears of an end before it is counted."""
    async with asyncio.timeout(10):
        while True:
            found = await scrape(running)
            if found.get("rpcs_total", **labels) >= count:
                return found
            await asyncio.sleep(0.01)


def sums(usages: list[Any]) -> dict[str, int]:
    """Return the tokens of several usages together, by kind."""
    kinds = ("prompt", "cached", "completion", "forced", "drafted", "accepted")
    return {kind: sum(getattr(usage, f"{kind}_tokens") for usage in usages) for kind in kinds}
