"""Who does not read holds back nobody else, and no more than its own answer."""

import asyncio
from typing import Any

import grpc
from tests.server.conftest import SLOTS
from tests.support.counting_engine import OpenDesk
from tests.support.running_server import PROMPT, Running, greedy

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub
from gpt2flow.server.engine.task import Task

NARROW = (
    ("grpc.http2.lookahead_bytes", 1024),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.max_frame_size", 16384),
)


async def test_events_that_nobody_reads_are_bounded_by_the_answer(open_desk: OpenDesk) -> None:
    desk = open_desk(slots=2, seconds=0.0)
    idle: Task = desk.task(300, stream=True)
    with desk.engine.submit([idle]):
        queue = desk.engine._live[idle.request.id].events
        for _ in range(5):
            assert len(await desk.run(desk.task(20, stream=True))) > 1
        async with asyncio.timeout(10):
            while idle.request.id in desk.engine._live:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)
        # It has ended: its slot is free though nobody has read a word.
        await desk.all_free()
        assert queue.qsize() <= 300 + 1


async def test_others_are_served_while_readers_stand_still(running: Running) -> None:
    request = pb.GenerateStreamRequest(
        prompt=PROMPT,
        options=greedy(70, output=pb.OutputOptions(logprobs=True, top_logprobs=5)),
    )
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}", options=NARROW) as channel:
        stub: Any = InferenceServiceStub(channel)
        silent = [stub.GenerateStream(request) for _ in range(SLOTS)]
        for call in silent:
            await call.read()
        messages = await asyncio.wait_for(running.stream(request), 20)
        assert messages[-1].end.result.usage.completion_tokens == 70
        await running.all_free()  # None of the silent holds a slot.
        # They still get all of it, once they read.
        for call in silent:
            while (message := await call.read()).WhichOneof("event") != "end":
                pass
            assert message.end.result.usage.completion_tokens == 70


async def test_a_handler_ends_with_its_client(running: Running) -> None:
    request = pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(70))
    before = len(asyncio.all_tasks())
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{running.port}", options=NARROW)
    stub: Any = InferenceServiceStub(channel)
    calls = [stub.GenerateStream(request) for _ in range(SLOTS)]
    for call in calls:
        await call.read()
    await channel.close(None)
    await asyncio.wait_for(running.model.engine.idle.wait(), 10)
    await running.all_free()
    async with asyncio.timeout(10):
        while len(asyncio.all_tasks()) > before:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
