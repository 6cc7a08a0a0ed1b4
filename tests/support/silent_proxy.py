"""TCP proxy that can fall silent, like an unplugged network cable."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_CHUNK = 1 << 16


class SilentProxy:
    """Proxy to a port of this machine, silent once it is cut.

    A silent proxy drops all data of both sides and keeps all connections open, even those
    that one side closes. Each side therefore sees a peer that is connected and sends nothing.

    Args:
        target: Port to forward to.
        delay: Latency in each direction, in seconds.

    Attributes:
        port: Port that the proxy listens on.
        hung_up: Semaphore that counts the connections closed by the server.
    """

    def __init__(self, target: int, delay: float) -> None:
        self.port = 0
        self.hung_up = threading.Semaphore(0)
        self._target, self._delay = target, delay
        # Bytes still to forward to the client; None is unlimited.
        self._left: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self, after: int = 0) -> None:
        """Fall silent once `after` more bytes have been sent to the client."""
        self._left = after

    async def open(self) -> asyncio.Server:
        """Start to listen on a free port."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _accept(
        self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        for forwarding in (
            self._forward_requests(from_client, to_server),
            self._forward_responses(from_server, to_client),
        ):
            # The event loop holds weak references only: a task without another one may vanish.
            self._tasks.add(asyncio.create_task(forwarding))

    async def _forward_requests(
        self, from_client: asyncio.StreamReader, to_server: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await from_client.read(_CHUNK):
                if self._left != 0:
                    await asyncio.sleep(self._delay)
                    to_server.write(data)
                    await to_server.drain()
        if self._left != 0:
            to_server.close()

    async def _forward_responses(
        self, from_server: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await from_server.read(_CHUNK):
                if self._left is not None:
                    data = data[: self._left]
                    self._left -= len(data)
                await asyncio.sleep(self._delay)
                to_client.write(data)
                await to_client.drain()
        self.hung_up.release()
        if self._left != 0:
            to_client.close()


@contextmanager
def silent_proxy(port: int, delay: float = 0.0) -> Iterator[SilentProxy]:
    """Run a proxy in its own thread, so that clients may block.

    Args:
        port: Port to forward to.
        delay: Latency in each direction, in seconds.
    """

    def run(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    async def close() -> None:
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    proxy = SilentProxy(port, delay)
    server = run(proxy.open())
    try:
        yield proxy
    finally:
        run(close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
