"""A way to a server that can fall silent without a word, as a pulled cable does."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_CHUNK = 1 << 16


class Line:
    """Carries connections to a port of this machine, until it is cut.

    From then on it swallows whatever comes from either side, the end of a connection too, and
    closes nothing: to each side the other one is there and says nothing.

    Attributes:
        port: Where it begins.
        hung_up: Counts the connections that the server has closed.
    """

    def __init__(self, target: int, delay: float) -> None:
        self.port = 0
        self.hung_up = threading.Semaphore(0)
        self._target, self._delay = target, delay
        # Bytes to the client that are still carried; None is no end.
        self._left: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self, after: int = 0) -> None:
        """Cut the line when so many more bytes have gone to the client."""
        self._left = after

    async def open(self) -> asyncio.Server:
        """Listen."""
        server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _join(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        far, to_far = await asyncio.open_connection("127.0.0.1", self._target)
        for carrying in (self._up(near, to_far), self._down(far, to_near)):
            # A task that nobody holds may be lost.
            self._tasks.add(asyncio.create_task(carrying))

    async def _up(self, near: asyncio.StreamReader, to_far: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await near.read(_CHUNK):
                if self._left != 0:
                    await asyncio.sleep(self._delay)
                    to_far.write(data)
                    await to_far.drain()
        if self._left != 0:
            to_far.close()

    async def _down(self, far: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await far.read(_CHUNK):
                if self._left is not None:
                    data = data[: self._left]
                    self._left -= len(data)
                await asyncio.sleep(self._delay)
                to_near.write(data)
                await to_near.drain()
        self.hung_up.release()
        if self._left != 0:
            to_near.close()


@contextmanager
def line_to(port: int, delay: float = 0.0) -> Iterator[Line]:
    """Open a line that lives in a thread of its own, so that clients may block.

    Args:
        port: Where it leads.
        delay: Seconds that what is sent takes, in each direction.
    """

    def run(what: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(what, loop).result(60)

    async def close() -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for each in others:
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    line = Line(port, delay)
    server = run(line.open())
    try:
        yield line
    finally:
        run(close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
