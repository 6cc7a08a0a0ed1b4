"""Minimal HTTP server on OpenVINO GenAI, which has none of its own.

    python -m peers.workers.openvino_http HOST PORT MODEL THREADS STREAMS CAPACITY

A POST of `prompt`, `new_tokens` and, for a constrained answer, `regex` is answered with a line of
JSON per step: the new token ids. A single thread steps the pipeline and serves the connections
between two steps. A step holds Python's interpreter lock, so that other threads would only wait.
"""

import itertools
import json
import selectors
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
from peers.workers.openvino_model import open_pipeline

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n"


class Connection:
    """Connection of a client, with one request and its answer."""

    def __init__(self, client: socket.socket) -> None:
        client.setblocking(False)
        # Each token is a small packet, which must not wait until the one before is acknowledged.
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client = client
        self._received = b""

    def receive(self) -> bytes | None:
        """Receive what has arrived; return the body of a complete request.

        A client that has gone has sent an empty request.
        """
        try:
            while part := self.client.recv(1 << 16):
                self._received += part
        except BlockingIOError:
            pass
        else:
            return b""
        head, end, body = self._received.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if line)
        return body if end and len(body) >= int(fields.get(b"content-length", 0)) else None

    def send(self, data: bytes) -> None:
        """Send a part of the answer, unless the client has gone."""
        with suppress(ConnectionError):
            self.client.sendall(data)


class Server:
    """Requests in progress, and the connections that wait for their tokens."""

    def __init__(self, host: str, port: int, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._ids = itertools.count()
        self._running: list[tuple[Any, Connection]] = []
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server((host, port))
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        """Serve until the process ends."""
        while True:
            self.serve_once()

    def serve_once(self) -> None:
        """Begin what has arrived, step, and send the new tokens."""
        for connection, body in self._arrived():
            if body:
                self._running.append((self._add(json.loads(body)), connection))
            connection.send(_HEAD)
            if not body:
                connection.client.close()
        if self._running:
            self._pipeline.step()
            self._running = [pair for pair in self._running if _forward(*pair)]

    def _arrived(self) -> Iterator[tuple[Connection, bytes]]:
        """Yield complete requests; without one in progress, wait for some."""
        for key, _ in self._selector.select(0 if self._running else None):
            for connection in [key.data] if key.data else list(self._accept()):
                if (body := connection.receive()) is not None:
                    self._selector.unregister(connection.client)
                    yield connection, body

    def _accept(self) -> Iterator[Connection]:
        """Accept all clients that wait."""
        with suppress(BlockingIOError):
            while True:
                connection = Connection(self._listener.accept()[0])
                self._selector.register(connection.client, selectors.EVENT_READ, connection)
                yield connection

    def _add(self, body: dict[str, Any]) -> Any:
        ids = openvino.Tensor(np.array([body["prompt"]], np.int64))
        return self._pipeline.add_request(next(self._ids), ids, _config(body))


def _forward(handle: Any, connection: Connection) -> bool:
    """Send a request's new tokens; return True while it is in progress."""
    running = handle.get_status() == openvino_genai.GenerationStatus.RUNNING
    while handle.can_read():
        new = [token for part in handle.read().values() for token in part.generated_ids]
        connection.send(json.dumps(new).encode() + b"\n")
    if not running:
        connection.client.close()
    return bool(running)


def _config(body: dict[str, Any]) -> Any:
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = body["new_tokens"]
    config.do_sample = False
    if regex := body.get("regex"):
        config.structured_output_config = openvino_genai.StructuredOutputConfig(regex=regex)
    else:
        config.min_new_tokens = body["new_tokens"]
        config.ignore_eos = True
    return config


if __name__ == "__main__":
    threads, streams, capacity = map(int, sys.argv[4:])
    opened = open_pipeline(
        Path(sys.argv[3]), threads=threads, streams=streams, capacity=capacity, properties={}
    )
    Server(sys.argv[1], int(sys.argv[2]), opened).serve()
