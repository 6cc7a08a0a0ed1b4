"""Base of the peers that serve HTTP, a connection for each stream."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from peers.workers.child import Child
from peers.workers.loop import Arrivals, Setup, Worker

_HOST = "127.0.0.1"
_TIMEOUT_SECONDS = 300.0


class HttpWorker(Worker):
    """Server process that streams its answers as lines."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._server: Child | None = None
        self._port = 0

    def load(self) -> dict[str, Any]:
        """Start the server."""
        self.unload()
        with socket.create_server((_HOST, 0)) as free:
            self._port = free.getsockname()[1]
        self._server = Child(self._command(_HOST, self._port), self._is_ready)
        return self._describe()

    def unload(self) -> None:
        """Stop the server."""
        if self._server:
            self._server.stop()
        self._server = None

    def stream(self, prompts: list[list[int]], new_tokens: int) -> list[Arrivals]:
        """Send all requests at once."""
        with ThreadPoolExecutor(len(prompts)) as threads:
            started = time.perf_counter()
            return list(
                threads.map(lambda prompt: self._arrivals(prompt, new_tokens, started), prompts)
            )

    def beside(self, prompts: list[list[int]], prompt: list[int], new_tokens: int) -> float:
        """Send a request once all streams have begun."""
        begun = [threading.Event() for _ in prompts]
        with ThreadPoolExecutor(len(prompts)) as threads:
            streams = [
                threads.submit(self._arrivals, each, new_tokens, 0.0, event)
                for each, event in zip(prompts, begun, strict=True)
            ]
            for event in begun:
                event.wait()
            first = self._arrivals(prompt, 2, time.perf_counter())[0]
            for stream in streams:
                if stream.done():
                    stream.result()
                    raise RuntimeError("a stream ended before the prompt's tokens arrived")
        return first

    def memory(self) -> int:
        """Return the resident memory of the server, in bytes."""
        if self._server is None:
            raise RuntimeError("model not loaded; call load first")
        return self._server.resident_bytes()

    def _command(self, host: str, port: int) -> list[str]:
        """Return the command that starts the server."""
        raise NotImplementedError

    def _is_ready(self) -> bool:
        """Return whether the server answers."""
        try:
            return bool(self._get("/health").get("status") == "ok")
        except OSError:
            return False

    def _describe(self) -> dict[str, Any]:
        """Return the versions of the running server."""
        raise NotImplementedError

    def _tokens(self, prompt: list[int], new_tokens: int) -> Iterator[int]:
        """Yield the number of tokens of each arriving message."""
        raise NotImplementedError

    def _arrivals(
        self,
        prompt: list[int],
        new_tokens: int,
        started: float,
        begun: threading.Event | None = None,
    ) -> Arrivals:
        """Return a stream's arrival times; its first token or end sets `begun`."""
        arrivals: Arrivals = []
        try:
            for count in self._tokens(prompt, new_tokens):
                arrivals += [time.perf_counter() - started] * count
                if begun and arrivals:
                    begun.set()
        finally:
            if begun:
                begun.set()
        return arrivals

    def _post_lines(self, path: str, body: dict[str, Any]) -> Iterator[bytes]:
        """Yield the lines of an answer as they arrive."""
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=_TIMEOUT_SECONDS)
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise RuntimeError(f"{response.status}: {response.read().decode()}")
        yield from response
        connection.close()

    def _get(self, path: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=_TIMEOUT_SECONDS)
        connection.request("GET", path)
        response: dict[str, Any] = json.load(connection.getresponse())
        connection.close()
        return response
