"""Cancelled streams leave no slot, task, connection or memory behind."""

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
from tests.support.fault_client import PROMPT, assert_nothing_left, canary, greedy
from tests.support.running_server import server_config, serving
from tests.support.server_process import ServerProcess
from tests.support.waiting import eventually, until

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub

WARM_UP, STREAMS, CONCURRENT = 500, 1000, 32
TOKENS = 40


class Canceller:
    """Client that ends streams at random points and in several ways."""

    def __init__(self, address: str, seed: int) -> None:
        self._address = address
        self._random = random.Random(seed)
        self._limit = asyncio.Semaphore(CONCURRENT)
        self.ended: Counter[str] = Counter()

    async def run(self, streams: int) -> None:
        channel = grpc.aio.insecure_channel(self._address)
        async with channel, asyncio.TaskGroup() as group:
            for _ in range(streams):
                group.create_task(self._one(channel))

    async def _one(self, channel: grpc.aio.Channel) -> None:
        ways = (self._cancel, self._exceed_deadline, self._disconnect, self._cancel_after_end)
        async with self._limit:
            way = self._random.choice(ways)
            try:
                await way(channel)
            except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
                code = error.code().name if isinstance(error, grpc.aio.AioRpcError) else "CANCELLED"
                self.ended[code] += 1

    def _request(self) -> pb.GenerateStreamRequest:
        request = greedy(TOKENS, priority=self._random.randint(-2, 2))
        if self._random.random() < 0.25:
            request.options.sampling.MergeFrom(pb.SamplingParams(temperature=1, n=3, seed=1))
        elif self._random.random() < 0.1:
            request.options.beam_search.num_beams = 4
        return request

    async def _read(self, call: Any, messages: int) -> None:
        for _ in range(messages):
            if await call.read() is grpc.aio.EOF:
                return

    async def _cancel(self, channel: grpc.aio.Channel) -> None:
        """Cancel before the first message, between two, or after the last."""
        stub: Any = InferenceServiceStub(channel)
        call = stub.GenerateStream(self._request())
        await asyncio.sleep(self._random.choice([0, 0.001, 0.005]))
        await self._read(call, self._random.choice([0, 0, 1, 5, 20, TOKENS]))
        call.cancel()
        await call.read()

    async def _exceed_deadline(self, channel: grpc.aio.Channel) -> None:
        stub: Any = InferenceServiceStub(channel)
        call = stub.GenerateStream(self._request(), timeout=self._random.uniform(0.001, 0.2))
        await self._read(call, 1000)
        await call.code()

    async def _disconnect(self, _channel: grpc.aio.Channel) -> None:
        """Close the connection of a stream."""
        # Without a pool of its own it would share the connection of other streams.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.aio.insecure_channel(self._address, options=options)
        stub: Any = InferenceServiceStub(channel)
        call = stub.GenerateStream(self._request())
        await self._read(call, self._random.choice([0, 1, 5]))
        await channel.close()

    async def _cancel_after_end(self, channel: grpc.aio.Channel) -> None:
        stub: Any = InferenceServiceStub(channel)
        call = stub.GenerateStream(self._request())
        await self._read(call, 1000)
        call.cancel()
        self.ended["OK"] += 1


def test_cancelled_streams_leave_nothing_behind(server: ServerProcess) -> None:
    answer = canary(server.address)
    asyncio.run(Canceller(server.address, 1).run(WARM_UP))
    eventually(lambda: canary(server.address) == answer)
    before = server.baseline()
    canceller = Canceller(server.address, 2)
    asyncio.run(canceller.run(STREAMS))
    assert canceller.ended["CANCELLED"] > STREAMS // 10, canceller.ended
    assert canceller.ended["OK"] > STREAMS // 10, canceller.ended
    assert set(canceller.ended) <= {"OK", "CANCELLED", "DEADLINE_EXCEEDED"}, canceller.ended
    assert_nothing_left(server, before)
    assert canary(server.address) == answer
    eventually(lambda: server.footprint().rss <= 1.05 * before.rss, server.footprint)
    eventually(lambda: server.footprint().threads <= before.threads)


async def test_cancelled_streams_leave_no_task_behind(bundle: Path) -> None:
    async with serving(server_config(bundle)) as running:
        address = f"127.0.0.1:{running.port}"
        await running.stub.GetModel(pb.GetModelRequest())
        before = len(asyncio.all_tasks())
        await Canceller(address, 3).run(100)
        await running.wait_all_free()
        await until(lambda: len(asyncio.all_tasks()) <= before)
        assert not running.model.engine._live
        request = pb.GenerateRequest(prompts=[PROMPT], options=greedy(3).options)
        [result] = (await running.stub.Generate(request)).results
        assert result.usage.completion_tokens == 3
