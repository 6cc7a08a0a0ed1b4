"""Grafana dashboard of the server: it shows every exported metric."""

from pathlib import Path
from typing import Any

from tests.support.dashboards import check_metrics
from tests.support.running_server import (
    PROMPT,
    RunningServer,
    failure,
    greedy,
    server_config,
    serving,
)
from tests.support.scraping import LOOPBACK, until_counted

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server import TelemetryConfig


async def traffic(running: RunningServer) -> dict[str, Any]:
    """Serve a stream and a failing call; return all series."""
    options = greedy(30, output=pb.OutputOptions(token_ids=True))
    await running.stream(pb.GenerateStreamRequest(prompt=PROMPT, options=options))
    await failure(running.stub.Generate(pb.GenerateRequest(model="x", prompts=[PROMPT])))
    return dict((await until_counted(running, 2)).samples)


async def test_the_dashboard_shows_exactly_the_exported_metrics(bundle: Path) -> None:
    telemetry = TelemetryConfig(metrics_address=LOOPBACK)
    async with serving(server_config(bundle, telemetry=telemetry)) as running:
        samples = await traffic(running)
    series = {name: [labels for labels, _ in found] for name, found in samples.items()}
    check_metrics("gpt2flow.json", series)
