"""Client process of the soak test.

    python -m soak.traffic ADDRESS RATE SECONDS SEED

Requests start at random times, RATE per second, whatever the server answers. Every half minute,
BURST more start at once. With RATE 0, CONCURRENCY requests are kept in flight instead, which
measures the server's capacity. Each completed request is a line of JSON on standard output.
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
# About the usual number of slots.
CONCURRENCY = 12


class Traffic:
    """Source of random requests, which prints a record of each."""

    def __init__(self, stub: Any, seed: int) -> None:
        self._stub = stub
        self._random = random.Random(seed)
        self._loop = asyncio.get_running_loop()

    async def send_one(self) -> None:
        """Send a request of a random kind, and print its record."""
        names = list(KINDS)
        [name] = self._random.choices(names, [kind.share for kind in KINDS.values()])
        rng = random.Random(self._random.random())
        started, first, detail, code = self._loop.time(), None, "", "OK"
        try:
            first = await KINDS[name].send(self._stub, rng)
        except grpc.aio.AioRpcError as error:
            code, detail = error.code().name, error.details() or ""
        except asyncio.CancelledError:
            # grpc.aio raises this for a call that its own client cancelled.
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

    async def arrivals(self, rate: float, seconds: float) -> AsyncIterator[int]:
        """Yield numbers of requests to start, at random times, with bursts."""
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
        """Start `rate` requests per second, whatever the server answers."""
        async with asyncio.TaskGroup() as group:
            async for count in self.arrivals(rate, seconds):
                for _ in range(count):
                    group.create_task(self.send_one())

    async def closed_loop(self, seconds: float) -> None:
        """Keep `CONCURRENCY` requests in flight."""
        end = self._loop.time() + seconds

        async def user() -> None:
            while self._loop.time() < end:
                await self.send_one()

        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(user())


async def main(address: str, rate: float, seconds: float, seed: int) -> None:
    """Send requests for `seconds`, then wait until all have ended."""
    async with grpc.aio.insecure_channel(address) as channel:
        traffic = Traffic(InferenceServiceStub(channel), seed)
        if rate:
            await traffic.open_loop(rate, seconds)
        else:
            await traffic.closed_loop(seconds)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
