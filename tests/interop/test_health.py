"""Tests of the health service: Check, as in grpc_health_probe, and Watch."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from tests.support.project import SHIPPED_BUNDLE

SERVING = HealthCheckResponse.SERVING


def probe(channel: grpc.Channel, service: str) -> int:
    """Return the exit code of grpc_health_probe.

    It is 0 for serving, 3 for a failed call, and 4 for not serving.
    """
    stub: Any = HealthStub(channel)
    try:
        response = stub.Check(HealthCheckRequest(service=service), timeout=5, wait_for_ready=True)
    except grpc.RpcError:
        return 3
    return 0 if response.status == SERVING else 4


@pytest.mark.parametrize(
    "service, code",
    [("", 0), ("gpt2flow.inference.v1.InferenceService", 0), ("shop", 0), ("absent", 3)],
)
def test_check_reports_the_status_of_each_service(
    channel: grpc.Channel, service: str, code: int
) -> None:
    assert probe(channel, service) == code


def test_watch_reports_the_drain(tmp_path: Path) -> None:
    ready = tmp_path / "port"
    command = [sys.executable, "-m", "gpt2flow.cli", "serve", "--model", str(SHIPPED_BUNDLE)]
    process = subprocess.Popen(
        [*command, "--address", "127.0.0.1:0", "--ready-file", str(ready)],
        stderr=subprocess.DEVNULL,
    )
    try:
        while not ready.exists():
            assert process.poll() is None
            time.sleep(0.02)
        with grpc.insecure_channel(f"127.0.0.1:{ready.read_text().strip()}") as channel:
            stub: Any = HealthStub(channel)
            statuses = stub.Watch(HealthCheckRequest(service="shop"), timeout=60)
            assert next(statuses).status == SERVING
            process.send_signal(signal.SIGTERM)
            assert next(statuses).status == HealthCheckResponse.NOT_SERVING
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
