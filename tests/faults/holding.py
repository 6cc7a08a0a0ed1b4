"""Keeps all slots taken, so that what is sent meanwhile has to wait."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from tests.faults.client import greedy
from tests.faults.process import SLOTS

from gpt2flow.inference.v1 import inference_pb2 as pb

# One runs, the others wait in the queue, so that hardly ever a slot is free.
_HOLDERS = 3


@asynccontextmanager
async def all_slots_held(stub: Any) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Holds all slots at the highest priority.

    Returns:
        A context with a function that waits until what was sent before has surely
        arrived: until every holder has had all slots two times more.
    """
    request = pb.GenerateRequest(prompts=[pb.Prompt(text="a")], options=greedy(80).options)
    request.options.priority = 100
    request.options.sampling.MergeFrom(pb.SamplingParams(temperature=1, n=SLOTS, seed=1))
    released, ended = asyncio.Event(), 0

    async def hold() -> None:
        nonlocal ended
        while not released.is_set():
            try:
                await stub.Generate(request)
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
