"""Payment provider that answers anything but what the contract says."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

# Answers one request on a connection, and may keep it open.
Behaviour = Callable[[socket.socket], None]


@dataclass
class BrokenProvider:
    """Provider on a free port of 127.0.0.1.

    Attributes:
        url: URL of the provider.
        requests: Requests that it has received, headers and body.
    """

    url: str
    requests: list[bytes] = field(default_factory=list)


@contextmanager
def broken_provider(behaviour: Behaviour) -> Iterator[BrokenProvider]:
    """Run a provider until the block ends.

    Args:
        behaviour: What it does on each connection, after it has received the request.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        provider = BrokenProvider(f"http://127.0.0.1:{listener.getsockname()[1]}")
        threading.Thread(target=_accept, args=(listener, provider, behaviour), daemon=True).start()
        try:
            yield provider
        finally:
            # Wakes the thread, which closing does not.
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, provider: BrokenProvider, behaviour: Behaviour) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(
                target=_serve, args=(connection, provider, behaviour), daemon=True
            ).start()


def _serve(connection: socket.socket, provider: BrokenProvider, behaviour: Behaviour) -> None:
    # The client may close its end at any time.
    with connection, suppress(OSError):
        provider.requests.append(_read_request(connection))
        behaviour(connection)


def _read_request(connection: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(65_536)
    head, _, body = request.partition(b"\r\n\r\n")
    lengths = [
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    ]
    while len(body) < sum(lengths):
        part = connection.recv(65_536)
        request, body = request + part, body + part
    return request


def answer(
    status: int, body: Any, *, headers: dict[str, str] | None = None, length: int | None = None
) -> Behaviour:
    """Return a behaviour that sends one answer, and closes the connection.

    Args:
        status: Status of the answer.
        body: Bytes, or a value to send as JSON.
        headers: Further headers.
        length: Length that the answer claims to have; None is the true one.
    """
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} Any",
        f"content-length: {len(content) if length is None else length}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return lambda connection: connection.sendall("\r\n".join([*lines, "", ""]).encode() + content)


def drip(start: bytes, part: bytes, seconds: float) -> Behaviour:
    """Return a behaviour that sends one part after another, without end.

    Args:
        start: Bytes in front of the parts.
        part: Bytes to repeat.
        seconds: Time between two parts.
    """

    def behave(connection: socket.socket) -> None:
        connection.sendall(start)
        pause = threading.Event()
        while not pause.wait(seconds):
            connection.sendall(part)

    return behave
