"""Closed-loop and open-loop load, and the measurement of one request."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from time import perf_counter

from gpt2flow.cli.load.measurements import NOT_STARTED, OK, Chunk, Record, add_unstreamed_tokens
from gpt2flow.cli.load.settings import Budget
from gpt2flow.cli.load.workload import Request
from gpt2flow.client import AsyncClient, ClientError, Delta, Generation

# Sends a request that is due at a time of `perf_counter`.
Send = Callable[[Request, float], Awaitable[None]]


async def closed_loop(
    send: Send, requests: Iterator[Request], concurrency: int, budget: Budget
) -> None:
    """Keep `concurrency` requests in flight until the budget is spent.

    Requests in flight at the end of a time budget are completed.
    """
    started = perf_counter()
    starts = budget.limit(iter(lambda: perf_counter() - started, None))

    async def user() -> None:
        # All users share one iterator, so that together they spend one budget.
        for offset in starts:
            await send(next(requests), started + offset)

    async with asyncio.TaskGroup() as users:
        for _ in range(min(concurrency, budget.requests or concurrency)):
            users.create_task(user())


async def open_loop(
    send: Send, requests: Iterator[Request], arrivals: Iterator[float], max_in_flight: int
) -> None:
    """Send one request per arrival, whether or not earlier ones have ended.

    Args:
        send: Sends one request.
        requests: Requests to send, unlimited.
        arrivals: Scheduled start of each request, in seconds from now.
        max_in_flight: Maximum number of requests in flight. At the maximum, arrivals start
            late but keep their scheduled start.
    """
    started = perf_counter()
    in_flight = asyncio.Semaphore(max_in_flight)

    async def user(request: Request, due: float) -> None:
        try:
            await send(request, due)
        finally:
            in_flight.release()

    async with asyncio.TaskGroup() as users:
        for offset in arrivals:
            request = next(requests)
            await asyncio.sleep(max(0.0, started + offset - perf_counter()))
            await in_flight.acquire()
            users.create_task(user(request, started + offset))


def poisson(rate: float, rng: Random) -> Iterator[float]:
    """Yield the arrivals of a Poisson process, in seconds from its start.

    Independent users form such a process. Arrivals at fixed intervals would hide its bursts.

    Args:
        rate: Mean number of arrivals per second.
        rng: Random numbers.
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
    """Stream one request to its end and measure it.

    A failed request is a record as well, with its status.

    Args:
        client: Client of the server.
        request: Request to send. Its options should return token ids, because streamed
            tokens are counted by them.
        seconds: Timeout of the request in seconds, from when it is due.
        model: Name of the model; empty selects the server's first.
        due: Scheduled start, on the clock of `time.perf_counter`; None is now.
    """
    started = perf_counter()
    due = started if due is None else due
    timeout = due + seconds - started
    if timeout <= 0:
        return Record(due, started, started, NOT_STARTED, f"still waiting after {seconds:g} s")
    chunks: list[Chunk] = []
    end: Generation | None = None
    status, detail = OK, ""
    stream = client.stream(request.prompt, request.options, model=model, timeout=timeout)
    try:
        async for item in stream:
            if isinstance(item, Delta):
                chunks.append(Chunk(perf_counter(), len(item.token_ids)))
            else:
                end = item
    except ClientError as error:
        status, detail = error.code.name, str(error)
    ended = perf_counter()
    if end is None:
        return Record(due, started, ended, status, detail, chunks)
    usage = end.usage
    return Record(
        due,
        started,
        ended,
        status,
        detail,
        add_unstreamed_tokens(chunks, usage.completion_tokens, ended),
        usage.prompt_tokens,
        usage.cached_tokens,
    )
