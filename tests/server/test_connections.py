"""Connections: no client is sent away for its pings, and one that is gone is found."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.server.serving import PROMPT, Running, greedy, serving

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub
from gpt2flow.server import ConnectionConfig

EAGER = [
    ("grpc.keepalive_time_ms", 10),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


@pytest.mark.parametrize("with_call", [True, False])
async def test_a_client_may_ping_as_often_as_it_can(running: Running, *, with_call: bool) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}", options=EAGER) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        if with_call:
            watch = health.Watch(health_pb2.HealthCheckRequest())
            await watch.read()
        await channel.channel_ready()
        lost = asyncio.create_task(channel.wait_for_state_change(grpc.ChannelConnectivity.READY))
        await asyncio.sleep(1.0)
        assert not lost.done()
        lost.cancel()


class Line:
    """A way to a server that can fall silent without a word, as a pulled cable does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        self._open.clear()

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        for source, target in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._carry(source, target))
            self._tasks.add(task)

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                await self._open.wait()
                target.write(data)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def line_to(port: int) -> AsyncIterator[tuple[Line, int]]:
    line = Line(port)
    server = await asyncio.start_server(line.join, "127.0.0.1", 0)
    try:
        yield line, server.sockets[0].getsockname()[1]
    finally:
        line.close()
        server.close()


@pytest.mark.usefixtures("slow")
async def test_a_client_that_vanished_frees_its_slots(bundle: Path) -> None:
    connections = ConnectionConfig(keepalive_seconds=0.1, keepalive_timeout_seconds=0.1)
    async with (
        serving(bundle, connections=connections) as running,
        line_to(running.port) as (line, port),
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub: Any = InferenceServiceStub(channel)
        call = stub.GenerateStream(pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(80)))
        await call.read()
        loaded = running.server.registry._loaded["first"]
        assert loaded.users == 1
        line.cut()
        await asyncio.wait_for(loaded.unused.wait(), 10)
        assert running.model.engine.idle.is_set()
        call.cancel()
