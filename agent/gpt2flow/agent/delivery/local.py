"""Messages to a file or to the console, for demos and tests."""

import asyncio
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from gpt2flow.agent.delivery.message import DeliveryError, OutgoingMessage
from gpt2flow.agent.errors import InputError

# Start of every line, by which a line that a crash cut off is told from another kind of file.
_START = b'{"type": "message.'


class FileTransport:
    """Sender of messages to a file of JSON lines, each key once.

    Several processes may share a file.

    Args:
        path: File to append to; it is created if it does not exist.

    Raises:
        InputError: The file cannot be written, or is no file of messages.
    """

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._keys: set[str] = set()
        # The part that has been read: that of which file, and up to which byte.
        self._read: tuple[int, int] = (0, 0)
        try:
            with self._locked() as file:
                self._read_keys(file)
        except OSError as error:
            raise InputError(f"--file {path}: {error.strerror}") from error

    async def send(self, message: OutgoingMessage) -> None:
        """Append a message to the disk unless the file has its key.

        Raises:
            DeliveryError: The file cannot be written.
        """
        try:
            await asyncio.to_thread(self._append, message)
        except (OSError, InputError) as error:
            raise DeliveryError(f"{self._path}: {error}") from error

    async def close(self) -> None:
        """Do nothing: the file is open only while a message is appended."""

    def _append(self, message: OutgoingMessage) -> None:
        line = json.dumps(message.payload(), ensure_ascii=False).encode() + b"\n"
        with self._locked() as file:
            self._read_keys(file)
            if message.key in self._keys:
                return
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """Open the file, and keep other threads and processes out."""
        with self._lock, self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _read_keys(self, file: BinaryIO) -> None:
        """Read the lines added since the last time; remove an incomplete one."""
        status = os.fstat(file.fileno())
        inode, (read_inode, read_end) = status.st_ino, self._read
        start = read_end if inode == read_inode and read_end <= status.st_size else 0
        file.seek(start)
        *lines, rest = file.read().split(b"\n")
        if rest[: len(_START)] != _START[: len(rest)]:
            raise InputError(f"--file {self._path} is no file of messages, name another one")
        self._keys.update(self._key(line) for line in lines)
        end = start + sum(len(line) + 1 for line in lines)
        if rest:
            file.truncate(end)
        self._read = (inode, end)

    def _key(self, line: bytes) -> str:
        try:
            return str(json.loads(line)["data"]["key"])
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"--file {self._path} has a line that is no message, name another file"
            ) from error


class ConsoleTransport:
    """Sender of messages to the console.

    Args:
        write: Function that prints a message.
    """

    name = "console"

    def __init__(self, write: Callable[[OutgoingMessage], None]) -> None:
        self._write = write

    async def send(self, message: OutgoingMessage) -> None:
        """Print a message.

        Raises:
            DeliveryError: The console cannot be written to.
        """
        try:
            self._write(message)
        except OSError as error:
            raise DeliveryError(f"console: {error}") from error

    async def close(self) -> None:
        """Do nothing: the console stays open."""
