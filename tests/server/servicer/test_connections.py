"""Connections: clients may ping at any rate."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from tests.support.running_server import RunningServer

pytestmark = pytest.mark.process

EAGER = [
    ("grpc.keepalive_time_ms", 10),
    ("grpc.keepalive_timeout_ms", 120_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


@pytest.mark.parametrize("with_call", [True, False])
async def test_frequent_pings_do_not_close_the_connection(
    running: RunningServer, *, with_call: bool
) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}", options=EAGER) as channel:
        health: Any = HealthStub(channel)
        if with_call:
            watch = health.Watch(HealthCheckRequest())
            await watch.read()
        await channel.channel_ready()
        lost = asyncio.create_task(channel.wait_for_state_change(grpc.ChannelConnectivity.READY))
        await asyncio.sleep(1.0)
        assert not lost.done()
        lost.cancel()
