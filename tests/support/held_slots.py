"""All slots of a server held, so that other requests must wait."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.support.fault_client import greedy
from tests.support.server_process import SLOTS, ServerProcess

from gpt2flow.inference.v1 import inference_pb2 as pb

# Requests that need all slots run one after another. All of them are queued at once, so that no
# slot is free in between, however slow this process is. Together they run for many seconds.
_HOLDERS, _TOKENS = 200, 80


@asynccontextmanager
async def all_slots_held(
    server: ServerProcess, stub: Any
) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Hold all slots at the highest priority until the context is left.

    Returns:
        A context manager that yields a function: it returns when `others` other requests wait.
    """
    request = pb.GenerateRequest(prompts=[pb.Prompt(text="a")], options=greedy(_TOKENS).options)
    request.options.priority = 100
    request.options.sampling.MergeFrom(pb.SamplingParams(temperature=1, n=SLOTS, seed=1))

    async def wait(others: int) -> None:
        while True:
            # Counted before the server is asked, so that its number can only be lower.
            unfinished = sum(1 for holder in holders if not holder.done())
            assert unfinished, (
                f"all {_HOLDERS} holders ended while the test waited for {others} requests"
            )
            waiting = await asyncio.to_thread(server.metric, "requests_waiting")
            if waiting >= others + unfinished - 1:
                return

    holders = [stub.Generate(request) for _ in range(_HOLDERS)]
    try:
        await wait(0)
        yield wait
    finally:
        for holder in holders:
            holder.cancel()
