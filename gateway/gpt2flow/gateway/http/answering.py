"""Work for a client that may leave, and streams of events."""

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, Final, TypeVar

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gpt2flow.gateway.errors import ApiError
from gpt2flow.gateway.http.drain import Drain, stopping

_Result = TypeVar("_Result")

_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
DONE: Final = b"data: [DONE]\n\n"


class ClientLeftError(Exception):
    """Client that closed the connection before its answer."""


async def while_connected(
    receive: Receive, drain: Drain, work: Coroutine[Any, Any, _Result]
) -> _Result:
    """Return the result of some work, cancelled once nobody awaits it.

    Args:
        receive: Channel of a request whose body was read.
        drain: Drain of the gateway.
        work: Work to do.

    Raises:
        ClientLeftError: The client closed the connection.
        ApiError: The gateway stops.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_disconnected(receive))
    ends: set[asyncio.Future[Any]] = {working, leaving, drain.aborted}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if leaving.done():
            raise ClientLeftError
        raise stopping()
    finally:
        working.cancel()
        leaving.cancel()
        # The call must have ended before the request has.
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events, whose status depends on the first one.

    A failure before the first event is an answer of its own. A later one is the last event.

    Args:
        events: Events as bytes.
        drain: Drain of the gateway.
        seconds: Longest time of the stream, for clients that stop reading.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], drain: Drain, seconds: float) -> None:
        super().__init__(headers=_HEADERS)
        # The length is not known.
        del self.headers["content-length"]
        self._events = events
        self._drain = drain
        self._seconds = seconds
        self._has_started = False

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            async with asyncio.timeout(self._seconds):
                await while_connected(receive, self._drain, self._send_all(send))
        except ClientLeftError:
            raise
        except TimeoutError as error:
            # The call had a deadline of its own, so the client has stopped reading.
            raise ClientLeftError from error
        except Exception as error:
            if not self._has_started:
                raise
            await _send_event(send, _error_event(error), is_last=True)

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            async for event in events:
                if not self._has_started:
                    self._has_started = True
                    await send(
                        {
                            "type": "http.response.start",
                            "status": self.status_code,
                            "headers": self.raw_headers,
                        }
                    )
                await _send_event(send, event)
        await _send_event(send, DONE, is_last=True)


async def _send_event(send: Send, event: bytes, *, is_last: bool = False) -> None:
    await send({"type": "http.response.body", "body": event, "more_body": not is_last})


def _error_event(error: Exception) -> bytes:
    """Return the event of a failure after the first event."""
    if not isinstance(error, ApiError):
        structlog.get_logger().error("stream_failed", exc_info=error)
        error = ApiError(500, "internal error; the log has its calls", code="internal_error")
    return f"data: {json.dumps(error.content())}\n\n".encode()
