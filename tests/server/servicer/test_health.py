"""Health watchers are sent NOT_SERVING before a server ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from tests.support.http2 import unreadable_call
from tests.support.running_server import RunningServer, server_config, serving
from tests.support.waiting import until

from gpt2flow.server import Server

pytestmark = pytest.mark.process

WATCHERS = 50
# The server and its models.
NAMES = ("", "first", "second")
# Far longer than the grace periods of a stop, and far shorter than the drain time.
STOP_SECONDS, DRAIN_SECONDS = 30, 300


async def rest_of(statuses: AsyncIterator[HealthCheckResponse]) -> list[int]:
    """Return the statuses of a stream that must end with UNAVAILABLE."""
    received = []
    try:
        async for response in statuses:
            received.append(response.status)  # noqa: PERF401 - the stream fails in the end
    except grpc.aio.AioRpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - raised by the iterator
        return received
    raise AssertionError("the stream ended without an error")


@pytest.mark.parametrize("end", [Server.close, Server.stop])
async def test_watchers_receive_not_serving_before_their_streams_end(
    bundle: Path, end: Callable[[Server], Any]
) -> None:
    async with serving(server_config(bundle)) as running:
        requests = [HealthCheckRequest(service=NAMES[i % len(NAMES)]) for i in range(WATCHERS)]
        watchers = [aiter(running.health.Watch(request)) for request in requests]
        for watcher in watchers:
            assert (await anext(watcher)).status == HealthCheckResponse.SERVING
        rest = [asyncio.create_task(rest_of(watcher)) for watcher in watchers]
        await end(running.server)
        assert await asyncio.gather(*rest) == [[HealthCheckResponse.NOT_SERVING]] * WATCHERS


async def watch_unread(running: RunningServer, service: str) -> asyncio.StreamWriter:
    """Open a connection that watches a service and accepts no response."""
    _, writer = await asyncio.open_connection("localhost", running.port)
    request = HealthCheckRequest(service=service).SerializeToString()
    writer.write(unreadable_call("/grpc.health.v1.Health/Watch", request))
    return writer


async def test_a_watcher_that_does_not_read_does_not_hold_up_the_stop(bundle: Path) -> None:
    async with serving(server_config(bundle, drain_seconds=DRAIN_SECONDS)) as running:
        unread = [await watch_unread(running, name) for name in NAMES]
        watched = running.server._health._watched
        await until(lambda: len(watched) == len(unread))
        reading = aiter(running.health.Watch(HealthCheckRequest()))
        assert (await anext(reading)).status == HealthCheckResponse.SERVING
        rest = asyncio.create_task(rest_of(reading))
        # A client may have its status before the server knows that it was sent.
        await until(lambda: [each.sent for each in watched].count(None) == len(unread))
        began = time.monotonic()
        await running.server.stop()
        assert time.monotonic() - began < STOP_SECONDS
        assert await rest == [HealthCheckResponse.NOT_SERVING]
        for writer in unread:
            writer.close()
