"""Generations of a request: one answer, or a stream of chunks."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gpt2flow.client import AsyncClient, ClientError, Delta, Generation, SettingsError
from gpt2flow.gateway.answers.envelope import Envelope
from gpt2flow.gateway.answers.failures import to_api_error
from gpt2flow.gateway.http.admission import request_id
from gpt2flow.gateway.http.answering import EventStream, while_connected
from gpt2flow.gateway.http.drain import Drain
from gpt2flow.gateway.plan.plan import Plan

# Time beyond the deadline of a call for its client to read the last event.
_READING_SECONDS: Final = 10.0
# Chunks of several prompts that wait for the client.
_MAX_WAITING: Final = 64

_Item = tuple[int, Delta | Generation]


class Writer(Protocol):
    """Writer of an answer in one of OpenAI's forms."""

    envelope: Envelope

    def whole(self, generations: Sequence[Generation]) -> dict[str, Any]:
        """Return the answer that does not stream."""

    def delta(self, prompt: int, delta: Delta) -> bytes:
        """Return the event of new text; empty without one."""

    def end(self, prompt: int, generation: Generation) -> bytes:
        """Return the last events of a prompt."""


class Responder:
    """Source of the answers to planned requests.

    Args:
        client: Client of the server.
        drain: Drain of the gateway.
        seconds: Longest time of a call.
    """

    def __init__(self, client: AsyncClient, drain: Drain, seconds: float) -> None:
        self._client = client
        self._drain = drain
        self._seconds = seconds

    async def answer(self, request: Request, plan: Plan, writer: Writer) -> Response:
        """Return the whole answer of a plan.

        Raises:
            ApiError: The call failed.
            ClientLeftError: The client closed the connection.
        """
        call = self._client.generate_many(
            plan.prompts, plan.options, model=plan.model, request_id=request_id(request)
        )
        try:
            generations = await while_connected(request.receive, self._drain, call)
        except (ClientError, SettingsError) as error:
            raise to_api_error(error, plan) from error
        return JSONResponse(writer.whole(generations), headers={"Cache-Control": "no-store"})

    def stream(self, request: Request, plan: Plan, writer: Writer) -> Response:
        """Return the streamed answer; its first event decides on the status."""
        events = _events(self._client, plan, writer, request_id(request))
        return EventStream(events, self._drain, self._seconds + _READING_SECONDS)


async def _events(
    client: AsyncClient, plan: Plan, writer: Writer, call_id: str
) -> AsyncGenerator[bytes, None]:
    """Yield the events of a plan, closing its calls at the end.

    Raises:
        ApiError: A call failed.
    """
    ended: dict[int, Generation] = {}
    try:
        async with aclosing(_items(client, plan, call_id)) as items:
            async for prompt, item in items:
                if isinstance(item, Generation):
                    ended[prompt] = item
                    yield writer.end(prompt, item)
                elif not plan.is_whole and (event := writer.delta(prompt, item)):
                    yield event
    except (ClientError, SettingsError) as error:
        raise to_api_error(error, plan) from error
    if writer.envelope.has_usage:
        yield writer.envelope.usage_chunk([ended[each] for each in sorted(ended)])


async def _items(client: AsyncClient, plan: Plan, call_id: str) -> AsyncGenerator[_Item, None]:
    """Yield the results of all calls, with the numbers of their prompts."""
    if len(plan.prompts) > 1:
        async with aclosing(_merged(client, plan, call_id)) as merged:
            async for item in merged:
                yield item
        return
    single = client.stream(plan.prompts[0], plan.options, model=plan.model, request_id=call_id)
    async with aclosing(single) as results:
        async for result in results:
            yield 0, result


async def _merged(client: AsyncClient, plan: Plan, call_id: str) -> AsyncGenerator[_Item, None]:
    """Yield the results of several calls; the first failure ends all."""
    queue: asyncio.Queue[_Item | Exception | None] = asyncio.Queue(_MAX_WAITING)

    async def read(prompt: int) -> None:
        results = client.stream(
            plan.prompts[prompt], plan.options, model=plan.model, request_id=call_id
        )
        async with aclosing(results):
            async for result in results:
                await queue.put((prompt, result))

    async def read_all() -> None:
        try:
            async with asyncio.TaskGroup() as calls:
                for prompt in range(len(plan.prompts)):
                    calls.create_task(read(prompt))
        except* Exception as failures:  # noqa: BLE001 - it is raised where the queue is read
            await queue.put(failures.exceptions[0])
        else:
            await queue.put(None)

    reading = asyncio.create_task(read_all())
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
