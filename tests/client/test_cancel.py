"""Tests that abandoned streams are cancelled, so that the server stops them."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.support.flaky_server import FlakyService, listening
from tests.support.waiting import SECONDS

from gpt2flow.client import AsyncClient, Client


async def closes(client: AsyncClient) -> None:
    stream = client.stream("x")
    await anext(stream)
    await stream.aclose()


async def breaks(client: AsyncClient) -> None:
    async for _ in client.stream("x"):
        break


async def is_cancelled(client: AsyncClient) -> None:
    async def read() -> None:
        async for _ in client.stream("x"):
            started.set()

    started = asyncio.Event()
    task = asyncio.create_task(read())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def times_out(client: AsyncClient) -> None:
    async def read() -> None:
        async with asyncio.timeout(None) as limit:
            async for _ in client.stream("x"):
                # The time is up as soon as the stream has started.
                limit.reschedule(asyncio.get_running_loop().time())

    with pytest.raises(TimeoutError):
        await read()


@pytest.mark.parametrize("stops", [closes, breaks, is_cancelled, times_out])
def test_an_abandoned_async_stream_is_cancelled(
    stops: Callable[[AsyncClient], Awaitable[None]],
) -> None:
    flaky = FlakyService(endless=True)

    async def run() -> None:
        async with AsyncClient(address) as client:
            await stops(client)
            # The client is still open, so that closing it cannot have ended the call.
            assert await asyncio.to_thread(flaky.ended.acquire, timeout=SECONDS)
            assert (await client.model()).name == "first"

    with listening(flaky) as address:
        asyncio.run(run())


@pytest.mark.parametrize("close", [True, False], ids=["closed", "dropped"])
def test_an_abandoned_sync_stream_is_cancelled(close: bool) -> None:  # noqa: FBT001 - a parameter of the test
    flaky = FlakyService(endless=True)
    with listening(flaky) as address, Client(address) as client:
        stream = client.stream("x")
        next(stream)
        if close:
            stream.close()
        else:
            del stream
        assert flaky.ended.acquire(timeout=SECONDS)
        assert client.model().name == "first"
