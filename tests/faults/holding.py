"""Keeps all slots taken, so that what is sent meanwhile has to wait."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from tests.faults.client import greedy
from tests.faults.process import SLOTS

# Two more sets wait in the queue, so that hardly ever a slot is free.
_HOLDERS = 3 * SLOTS


@asynccontextmanager
async def all_slots_held(stub: Any) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Holds all slots at the highest priority.

    Returns:
        A context with a function that waits until what was sent before has surely
        arrived: until every holder has been through two streams more.
    """
    released, ended = asyncio.Event(), 0

    async def hold() -> None:
        nonlocal ended
        while not released.is_set():
            try:
                async for _ in stub.GenerateStream(greedy(40, priority=100)):
                    pass
            except grpc.aio.AioRpcError as error:
                if released.is_set() and error.code() == grpc.StatusCode.UNAVAILABLE:
                    return
                raise
            ended += 1

    async def some_rounds() -> None:
        target = ended + 2 * _HOLDERS
        while ended < target:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        for _ in range(_HOLDERS):
            group.create_task(hold())
        await some_rounds()
        try:
            yield some_rounds
        finally:
            released.set()
