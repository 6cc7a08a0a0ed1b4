"""llama.cpp's server over HTTP, with a connection per stream."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from peers.workers import llama_build
from peers.workers.child import Child
from peers.workers.loop import Arrivals, Setup, Worker, run_worker

_HOST = "127.0.0.1"
_TIMEOUT_SECONDS = 120.0
_GREEDY = {"temperature": 0.0, "top_k": 1, "samplers": ["top_k"], "cache_prompt": False}


class LlamaServer(Worker):
    """llama-server with a slot for each stream."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._server: Child | None = None
        self._port = 0

    def prepare(self) -> None:
        """Build the server and convert the checkpoint."""
        llama_build.build()
        llama_build.convert(self.setup.checkpoint, self.setup.folder, self.setup.variant)

    def load(self) -> dict[str, Any]:
        """Start the server."""
        if self._server:
            self._server.stop()
        setup = self.setup
        with socket.create_server((_HOST, 0)) as free:
            self._port = free.getsockname()[1]
        model = llama_build.convert(setup.checkpoint, setup.folder, setup.variant)
        options = {
            "model": model,
            "host": _HOST,
            "port": self._port,
            "threads": setup.threads,
            "parallel": setup.streams,
            "ctx-size": setup.streams * setup.capacity,
            # The slots suffice as a cache; prompts kept beside them would only use memory.
            "cache-ram": 0,
            "log-verbosity": 1,
        }
        command = [str(llama_build.server_binary())]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        self._server = Child(command, self._is_ready)
        properties = self._get("/props")
        return {
            "version": f"llama.cpp {properties.get('build_info', '?')}",
            "weight_bytes": model.stat().st_size,
        }

    def stream(self, prompts: list[list[int]], new_tokens: int) -> list[Arrivals]:
        """Send all requests at once."""
        body = {**_GREEDY, "n_predict": new_tokens, "ignore_eos": True}
        with ThreadPoolExecutor(len(prompts)) as threads:
            started = time.perf_counter()
            bodies = ({**body, "prompt": prompt} for prompt in prompts)
            return list(threads.map(lambda body: self._arrivals(body, started), bodies))

    def turn(
        self, prompt: list[int], schema: dict[str, Any], max_new_tokens: int
    ) -> dict[str, Any]:
        """Request JSON under the schema; the slot reuses its cached prefix."""
        body = {**_GREEDY, "prompt": prompt, "n_predict": max_new_tokens, "json_schema": schema}
        started = time.perf_counter()
        events = list(self._events({**body, "cache_prompt": True}))
        seconds = time.perf_counter() - started
        return {
            "seconds": seconds,
            "tokens": events[-1]["tokens_predicted"],
            "cached": events[-1]["timings"]["cache_n"],
            "text": "".join(event["content"] for event in events),
        }

    def memory(self) -> int:
        """Return the resident memory of the server, in bytes."""
        if self._server is None:
            raise RuntimeError("model not loaded; call load first")
        return self._server.resident_bytes()

    def _arrivals(self, body: dict[str, Any], started: float) -> Arrivals:
        arrivals: Arrivals = []
        for event in self._events(body):
            # A token that ends inside a character arrives together with the next one.
            arrivals += [time.perf_counter() - started] * len(event["tokens"])
        return arrivals

    def _events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the events of a streamed completion."""
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=_TIMEOUT_SECONDS)
        text = json.dumps({**body, "stream": True, "return_tokens": True})
        connection.request("POST", "/completion", text, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise RuntimeError(f"{response.status}: {response.read().decode()}")
        for line in response:
            if line.startswith(b"data: "):
                yield json.loads(line[len(b"data: ") :])
        connection.close()

    def _is_ready(self) -> bool:
        try:
            return bool(self._get("/health").get("status") == "ok")
        except OSError:
            return False

    def _get(self, path: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=_TIMEOUT_SECONDS)
        connection.request("GET", path)
        response: dict[str, Any] = json.load(connection.getresponse())
        connection.close()
        return response


if __name__ == "__main__":
    run_worker(LlamaServer)
