"""Work for clients that leave or stop reading, without a network."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from gpt2flow.gateway.errors import ApiError
from gpt2flow.gateway.http.answering import ClientLeftError, EventStream, while_connected
from gpt2flow.gateway.http.drain import Drain

SECONDS = 60.0


class Connection:
    """Connection of a client, as an ASGI application sees it.

    Attributes:
        sent: Messages of the application.
        has_event: Event that is set once an event was sent.
        left: Event that is set once the client has left.
        reads: Whether the client reads what is sent.
    """

    def __init__(self, *, reads: bool = True) -> None:
        self.sent: list[dict[str, Any]] = []
        self.has_event = asyncio.Event()
        self.left = asyncio.Event()
        self.reads = reads

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if len(self.sent) > 1:
            self.has_event.set()
        if not self.reads:
            await asyncio.Event().wait()

    @property
    def body(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()


class Events:
    """Source of events.

    Attributes:
        is_closed: Whether the source was closed.
    """

    def __init__(self, *parts: bytes | Exception, endless: bool = False) -> None:
        self._parts = parts
        self._endless = endless
        self.is_closed = False

    async def stream(self) -> AsyncGenerator[bytes, None]:
        try:
            for part in self._parts:
                if isinstance(part, Exception):
                    raise part
                yield part
            if self._endless:
                await asyncio.Event().wait()
        finally:
            self.is_closed = True


async def answer(
    events: Events, connection: Connection, drain: Drain, seconds: float = SECONDS
) -> None:
    stream = EventStream(events.stream(), drain, seconds)
    await stream({"type": "http"}, connection.receive, connection.send)


async def test_a_stream_ends_with_its_word() -> None:
    connection, events = Connection(), Events(b"data: 1\n\n", b"data: 2\n\n")
    await answer(events, connection, Drain())
    assert connection.body == "data: 1\n\ndata: 2\n\ndata: [DONE]\n\n"
    first, *_, last = connection.sent
    assert (first["status"], last["more_body"]) == (200, False)
    headers = dict(first["headers"])
    assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert b"content-length" not in headers


async def test_a_failure_before_the_first_event_sends_nothing() -> None:
    connection = Connection()
    with pytest.raises(ApiError):
        await answer(Events(ApiError(429, "full")), connection, Drain())
    assert connection.sent == []


@pytest.mark.parametrize(
    "failure, code",
    [
        (ApiError(503, "away", code="unavailable"), "unavailable"),
        (RuntimeError("about a text"), "internal_error"),
    ],
)
async def test_a_later_failure_is_the_last_event(failure: Exception, code: str) -> None:
    connection = Connection()
    await answer(Events(b"data: 1\n\n", failure), connection, Drain())
    first, last, rest = connection.body.split("\n\n")
    assert (first, rest) == ("data: 1", "")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == code
    assert "about a text" not in last


async def test_a_client_that_leaves_closes_the_source() -> None:
    connection, events = Connection(), Events(b"data: 1\n\n", endless=True)
    answering = asyncio.create_task(answer(events, connection, Drain()))
    await connection.has_event.wait()
    connection.left.set()
    with pytest.raises(ClientLeftError):
        await answering
    assert events.is_closed


async def test_a_client_that_stops_reading_closes_the_source() -> None:
    connection, events = Connection(reads=False), Events(b"data: 1\n\n")
    with pytest.raises(ClientLeftError):
        await answer(events, connection, Drain(), seconds=0.05)
    assert events.is_closed


async def test_a_drain_that_ends_aborts_a_stream_with_an_error() -> None:
    connection, events, drain = Connection(), Events(b"data: 1\n\n", endless=True), Drain()
    answering = asyncio.create_task(answer(events, connection, drain))
    await connection.has_event.wait()
    drain.abort()
    await answering
    assert events.is_closed
    assert '"code": "unavailable"' in connection.body


async def test_work_returns_its_result_or_its_error() -> None:
    async def fail() -> None:
        raise ValueError

    connection, drain = Connection(), Drain()
    assert await while_connected(connection.receive, drain, asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ValueError, match=r"^$"):
        await while_connected(connection.receive, drain, fail())


async def test_work_of_a_client_that_has_left_is_cancelled() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    connection = Connection()
    connection.left.set()
    with pytest.raises(ClientLeftError):
        await while_connected(connection.receive, Drain(), work())
    assert ended.is_set()


async def test_a_drain_waits_for_running_requests_and_refuses_new_ones() -> None:
    drain = Drain()
    with drain.request():
        drain.close()
        finished = asyncio.create_task(drain.finished())
        with pytest.raises(ApiError) as caught, drain.request():
            pass
        await asyncio.sleep(0)
        assert not finished.done()
    await finished
    assert caught.value.status == 503
