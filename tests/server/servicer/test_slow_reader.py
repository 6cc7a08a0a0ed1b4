"""Clients that do not read delay no others and buffer one answer."""

import asyncio
from typing import Any

import grpc
import pytest
from tests.support.counting_engine import OpenEngine
from tests.support.engine_bench import SLOTS
from tests.support.running_server import PROMPT, RunningServer, greedy
from tests.support.waiting import until

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub
from gpt2flow.server.engine.task import Task

pytestmark = pytest.mark.process

SMALL_WINDOW = (
    ("grpc.http2.lookahead_bytes", 1024),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.max_frame_size", 16384),
)


async def test_unread_events_are_bounded_by_the_answer(open_engine: OpenEngine) -> None:
    harness = open_engine(slots=2, seconds=0.0)
    idle: Task = harness.task(300, stream=True)
    with harness.engine.submit([idle]):
        queue = harness.engine._live[idle.request.id].events
        for _ in range(5):
            assert len(await harness.run(harness.task(20, stream=True))) > 1
        await until(lambda: idle.request.id not in harness.engine._live)
        # The request has finished and freed its slot, although its events are unread.
        await harness.wait_all_free()
        assert queue.qsize() <= 300 + 1


async def test_other_clients_are_served_while_streams_are_unread(running: RunningServer) -> None:
    request = pb.GenerateStreamRequest(
        prompt=PROMPT,
        options=greedy(70, output=pb.OutputOptions(logprobs=True, top_logprobs=5)),
    )
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{running.port}", options=SMALL_WINDOW
    ) as channel:
        stub: Any = InferenceServiceStub(channel)
        unread = [stub.GenerateStream(request) for _ in range(SLOTS)]
        for call in unread:
            await call.read()
        messages = await running.stream(request)
        assert messages[-1].end.result.usage.completion_tokens == 70
        await running.wait_all_free()  # No unread stream holds a slot.
        # Unread streams are still complete.
        for call in unread:
            while (message := await call.read()).WhichOneof("event") != "end":
                pass
            assert message.end.result.usage.completion_tokens == 70


async def test_a_handler_ends_with_its_client(running: RunningServer) -> None:
    request = pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(70))
    before = len(asyncio.all_tasks())
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{running.port}", options=SMALL_WINDOW)
    stub: Any = InferenceServiceStub(channel)
    calls = [stub.GenerateStream(request) for _ in range(SLOTS)]
    for call in calls:
        await call.read()
    await channel.close(None)
    await until(running.engine.idle.is_set)
    await running.wait_all_free()
    await until(lambda: len(asyncio.all_tasks()) <= before)
