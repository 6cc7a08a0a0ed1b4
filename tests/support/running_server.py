"""In-process server on a real port, its client, and request helpers."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_status import rpc_status
from tests.support.engine_bench import SLOTS
from tests.support.waiting import until

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub
from gpt2flow.server import EngineConfig, Server, ServerConfig
from gpt2flow.server.engine.async_engine import AsyncEngine
from gpt2flow.server.models.model import Model

PROMPT = pb.Prompt(text="Where is my order?")
GREEDY = pb.SamplingParams(temperature=0)


def greedy(max_new_tokens: int, **fields: Any) -> pb.GenerationOptions:
    """Return options of exactly `max_new_tokens` tokens, decoded greedily."""
    stopping = pb.StoppingCriteria(max_new_tokens=max_new_tokens, ignore_eos=True)
    return pb.GenerationOptions(sampling=GREEDY, stopping=stopping, **fields)


@dataclass
class RunningServer:
    """Started server with a channel and stubs connected to it."""

    server: Server
    port: int
    channel: Any

    def __post_init__(self) -> None:
        self.stub: Any = InferenceServiceStub(self.channel)
        self.health: Any = HealthStub(self.channel)

    @property
    def model(self) -> Model:
        """First model of the registry, which is the default one."""
        return self.server.registry.models[0]

    @property
    def engine(self) -> AsyncEngine:
        """Engine of the first model."""
        return self.model.engine

    @property
    def free_slots(self) -> int:
        """Free slots of the first model."""
        return self.engine.engine.cache.free_slots

    async def wait_all_free(self) -> None:
        """Return when the first model's slots are free."""
        await until(lambda: self.free_slots == self.model.limits.max_sequences)

    async def status(self, name: str) -> HealthCheckResponse.ServingStatus:
        """Return the health of a model; the empty name is the server."""
        return (await self.health.Check(HealthCheckRequest(service=name))).status

    async def stream(self, request: pb.GenerateStreamRequest) -> list[pb.GenerateStreamResponse]:
        """Return all messages of a stream that must succeed."""
        return [message async for message in self.stub.GenerateStream(request)]


def server_config(bundle: Path, **options: Any) -> ServerConfig:
    """Return the settings of a server with the bundle under two names."""
    engine = EngineConfig(threads=1, max_sequences=SLOTS, max_queued=2, prefill_chunk=8)
    return ServerConfig(
        models={"first": bundle, "second": bundle}, port=0, engine=engine, **options
    )


async def failure(call: Any) -> tuple[grpc.StatusCode, str, Any]:
    """Return status code, message and first detail of a failing call."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    status = await rpc_status.aio.from_call(call)
    detail = None
    if status is not None:
        assert status.code == error.code().value[0]
        assert status.message == error.details()
        for kind in (BadRequest, RetryInfo):
            if status.details[0].Is(kind.DESCRIPTOR):
                detail = kind()
                status.details[0].Unpack(detail)
    return error.code(), error.details() or "", detail


def bad_fields(detail: BadRequest) -> list[str]:
    """Return the field names of all violations, in order."""
    return [violation.field for violation in detail.field_violations]


@asynccontextmanager
async def serving(
    config: ServerConfig, connect: Callable[[str], Any] = grpc.aio.insecure_channel
) -> AsyncIterator[RunningServer]:
    """Run a server whose slots must all be free in the end.

    The block may stop the server.
    """
    server = Server(config)
    port = await server.start()
    try:
        async with connect(f"localhost:{port}") as channel:
            running = RunningServer(server, port, channel)
            yield running
            await running.wait_all_free()
        await server.drain()
    finally:
        await server.close()
