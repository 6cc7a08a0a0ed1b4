"""The two ways of sending: users who wait for their answer, and arrivals that wait for nobody."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from time import perf_counter

from gpt2flow.cli.load.measurements import NOT_STARTED, OK, Arrival, Record, with_uncounted
from gpt2flow.cli.load.settings import Budget
from gpt2flow.cli.load.workload import Request
from gpt2flow.client import AsyncClient, ClientError, Delta, Generation

# Sends a request that was due at a time of `perf_counter`.
Send = Callable[[Request, float], Awaitable[None]]


async def closed_loop(
    send: Send, requests: Iterator[Request], concurrency: int, budget: Budget
) -> None:
    """Keep `concurrency` requests in flight until the budget is spent.

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
    """Send a request at each arrival, given in seconds from now.

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


def poisson(rate: float, rng: Random) -> Iterator[float]:
    """Yield arrivals without end: seconds from the start, `rate` a second on average.

    Independent users make a Poisson process, whose bursts a fixed beat would hide.
    """
    offset = 0.0
    while True:
        offset += rng.expovariate(rate)
        yield offset


async def send(
    client: AsyncClient,
    request: Request,
    *,
    seconds: float,
    model: str = "",
    due: float | None = None,
) -> Record:
    """Stream one request to its end; a failure is a record too.

    Args:
        client: Sends it.
        request: Its options should ask for token ids, which are what is counted.
        seconds: It may take, from when it was due.
        model: The model; empty is the server's first.
        due: When it should have started, as `time.perf_counter`; now, if absent.
    """
    started = perf_counter()
    due = started if due is None else due
    left = due + seconds - started
    if left <= 0:
        return Record(due, started, started, NOT_STARTED, f"still waiting after {seconds:g} s")
    arrivals: list[Arrival] = []
    end: Generation | None = None
    status, detail = OK, ""
    try:
        async for item in client.stream(request.prompt, request.options, model=model, timeout=left):
            if isinstance(item, Delta):
                arrivals.append(Arrival(perf_counter(), len(item.token_ids)))
            else:
                end = item
    except ClientError as error:
        status, detail = error.code.name, str(error)
    ended = perf_counter()
    if end is None:
        return Record(due, started, ended, status, detail, arrivals)
    usage = end.usage
    return Record(
        due,
        started,
        ended,
        status,
        detail,
        with_uncounted(arrivals, usage.completion_tokens, ended),
        usage.prompt_tokens,
        usage.cached_tokens,
    )
