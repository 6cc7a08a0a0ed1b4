"""The two ways of sending: users who wait for their answer, and arrivals that wait for nobody."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter

from gpt2flow.cli.load.arrivals import Budget
from gpt2flow.cli.load.workload import Request

# Sends a request that was due at a time of `perf_counter`.
Send = Callable[[Request, float], Awaitable[None]]


async def closed_loop(
    send: Send, requests: Iterator[Request], concurrency: int, budget: Budget
) -> None:
    """Keeps `concurrency` requests in flight until the budget is spent.

    Requests that are in flight when the time of a budget is over are waited for.
    """
    began = perf_counter()
    starts = budget.cut(iter(lambda: perf_counter() - began, None))

    async def user() -> None:
        # The users take turns at one iterator.
        for offset in starts:
            await send(next(requests), began + offset)

    async with asyncio.TaskGroup() as users:
        for _ in range(min(concurrency, budget.requests or concurrency)):
            users.create_task(user())


async def open_loop(
    send: Send, requests: Iterator[Request], arrivals: Iterator[float], max_in_flight: int
) -> None:
    """Sends a request at each arrival, given in seconds from now.

    While `max_in_flight` are in flight, arrivals wait, but stay due when they were.
    """
    began = perf_counter()
    places = asyncio.Semaphore(max_in_flight)

    async def user(request: Request, due: float) -> None:
        try:
            await send(request, due)
        finally:
            places.release()

    async with asyncio.TaskGroup() as users:
        for offset in arrivals:
            request = next(requests)
            await asyncio.sleep(max(0.0, began + offset - perf_counter()))
            await places.acquire()
            users.create_task(user(request, began + offset))
