"""Tests of the health service: Check, as in grpc_health_probe, and Watch."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from tests.support.project import SHIPPED_BUNDLE
from tests.support.server_process import server_process
from tests.support.waiting import SECONDS

SERVING = HealthCheckResponse.SERVING


def probe(channel: grpc.Channel, service: str) -> int:
    """Return the exit code of grpc_health_probe.

    It is 0 for serving, 3 for a failed call, and 4 for not serving.
    """
    stub: Any = HealthStub(channel)
    try:
        response = stub.Check(
            HealthCheckRequest(service=service), timeout=SECONDS, wait_for_ready=True
        )
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
    with server_process(SHIPPED_BUNDLE, tmp_path, name="shop") as server:
        with grpc.insecure_channel(server.address) as channel:
            stub: Any = HealthStub(channel)
            statuses = stub.Watch(HealthCheckRequest(service="shop"), timeout=SECONDS)
            assert next(statuses).status == SERVING
            server.terminate()
            assert next(statuses).status == HealthCheckResponse.NOT_SERVING
        server.wait()
