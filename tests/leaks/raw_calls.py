"""Calls on raw HTTP/2, which end as no gRPC library ends them."""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from tests.support import http2

# A reset instead of an orderly end of the connection.
_ABRUPT = struct.pack("ii", 1, 0)


class RawConnection:
    """Connection to a server, whose frames are written by hand.

    Args:
        reader: Frames from the server.
        writer: Frames to the server.
        metadata: Metadata of each call.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        metadata: Mapping[str, str],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._metadata = metadata

    async def send(self, frames: bytes) -> None:
        """Send frames."""
        self._writer.write(frames)
        await self._writer.drain()

    def headers(self, path: str, stream: int) -> bytes:
        """Return the headers of a call."""
        return http2.headers(path, stream, self._metadata)

    def call(self, path: str, message: bytes, stream: int) -> bytes:
        """Return a whole call."""
        return self.headers(path, stream) + http2.only_message(message, stream)

    async def wait_for(self, kind: int, count: int = 1, flags: int = 0) -> None:
        """Read until a number of frames of a kind has arrived."""
        while count:
            header = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(header[:3]))
            count -= header[3] == kind and header[4] & flags == flags
            if header[3] == http2.PING and not header[4] & http2.ACKNOWLEDGED:
                # The server closes a connection that answers no pings.
                await self.send(http2.frame(http2.PING, payload, flags=http2.ACKNOWLEDGED))

    async def wait_until_read(self) -> None:
        """Wait until the server has read all that was sent."""
        await self.send(http2.frame(http2.PING, bytes(8)))
        await self.wait_for(http2.PING, flags=http2.ACKNOWLEDGED)

    def cut(self) -> None:
        """Reset the connection itself."""
        raw: socket.socket = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABRUPT)
        self._writer.close()


@asynccontextmanager
async def raw_connection(
    address: str, metadata: Mapping[str, str], settings: bytes = http2.SETTINGS
) -> AsyncIterator[RawConnection]:
    """Open a connection, and close it at the end of the block."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        connection = RawConnection(reader, writer, metadata)
        await connection.send(http2.PREFACE + settings)
        yield connection
    finally:
        writer.close()


def streams(calls: int) -> range:
    """Return the numbers of the streams of a client."""
    return range(1, 2 * calls, 2)


async def reset_before_message(connection: RawConnection, path: str, calls: int) -> None:
    """Cancel calls of which only the headers were sent."""
    for stream in streams(calls):
        await connection.send(connection.headers(path, stream) + http2.reset(stream))
    await connection.wait_until_read()


async def reset_with_message(
    connection: RawConnection, path: str, message: bytes, calls: int
) -> None:
    """Cancel calls together with their message, or a moment later."""
    for stream in streams(calls):
        await connection.send(connection.call(path, message, stream))
        if random.random() < 0.5:
            await connection.wait_until_read()
        await connection.send(http2.reset(stream))
    await connection.wait_until_read()


async def reset_unread(connection: RawConnection, path: str, message: bytes, calls: int) -> None:
    """Cancel streams that have begun to write without a window."""
    for stream in streams(calls):
        await connection.send(connection.call(path, message, stream))
    await connection.wait_for(http2.HEADERS, calls)
    await connection.send(b"".join(map(http2.reset, streams(calls))))
    await connection.wait_until_read()


async def cut_in_stream(connection: RawConnection, path: str, message: bytes, calls: int) -> None:
    """Cut a connection while its streams write."""
    for stream in streams(calls):
        await connection.send(connection.call(path, message, stream))
    await connection.wait_for(http2.DATA, random.randint(1, calls))
    connection.cut()
