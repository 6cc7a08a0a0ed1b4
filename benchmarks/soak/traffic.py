"""A client process of the soak: `python -m soak.traffic ADDRESS RATE SECONDS SEED`.

Requests start at random moments, RATE of them a second, whatever the server
answers; every half minute, BURST more come at once. RATE 0 keeps as many under
way as slots usually are, which tells what the server can do. Each request is a
line of JSON on standard output when it has ended.
"""

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
from soak.kinds import KINDS

from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub

BURST, BURST_SECONDS = 12, 30.0
AT_ONCE = 12


class Traffic:
    """Sends requests and tells of each."""

    def __init__(self, stub: Any, seed: int) -> None:
        self._stub = stub
        self._random = random.Random(seed)
        self._loop = asyncio.get_running_loop()

    async def one(self) -> None:
        """Send one request of a random kind."""
        names = list(KINDS)
        [name] = self._random.choices(names, [KINDS[each].share for each in names])
        drawn = random.Random(self._random.random())
        started, first, detail, code = self._loop.time(), None, "", "OK"
        try:
            first = await KINDS[name].send(self._stub, drawn)
        except grpc.aio.AioRpcError as error:
            code, detail = error.code().name, error.details() or ""
        except asyncio.CancelledError:
            # What a cancelled call raises; a cancelled task raises it for good.
            code = "CANCELLED"
        record = {
            "kind": name,
            "code": code,
            "detail": detail[:200],
            "seconds": self._loop.time() - started,
            "first_token": None if first is None else first - started,
        }
        sys.stdout.write(json.dumps(record) + "\n")
        sys.stdout.flush()

    async def moments(self, rate: float, seconds: float) -> AsyncIterator[int]:
        """Yield, at random moments, how many requests are to start."""
        end, burst = self._loop.time() + seconds, self._loop.time() + BURST_SECONDS / 2
        due = self._loop.time()
        while due < end:
            due += self._random.expovariate(rate)
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            yield 1
            if self._loop.time() >= burst:
                burst += BURST_SECONDS
                yield BURST

    async def open_loop(self, rate: float, seconds: float) -> None:
        """Start so many requests a second."""
        async with asyncio.TaskGroup() as group:
            async for count in self.moments(rate, seconds):
                for _ in range(count):
                    group.create_task(self.one())

    async def closed_loop(self, seconds: float) -> None:
        """Keep as many requests under way as the server likes best."""
        end = self._loop.time() + seconds

        async def user() -> None:
            while self._loop.time() < end:
                await self.one()

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(user())


async def main(address: str, rate: float, seconds: float, seed: int) -> None:
    """Send requests for so long, and waits until all have ended."""
    async with grpc.aio.insecure_channel(address) as channel:
        traffic = Traffic(InferenceServiceStub(channel), seed)
        if rate:
            await traffic.open_loop(rate, seconds)
        else:
            await traffic.closed_loop(seconds)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
