"""OpenVINO GenAI behind the minimal HTTP server of `openvino_http`."""

import http.client
import json
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from peers.workers import openvino_model
from peers.workers.compact import compact_regex
from peers.workers.http_worker import HttpWorker
from peers.workers.loop import run_worker
from tokenizers import Tokenizer


class OpenVinoServer(HttpWorker):
    """Continuous batching in a process of its own."""

    def prepare(self) -> None:
        """Convert the checkpoint."""
        self._convert()

    def step_bytes(self) -> int:
        """Return the bytes of all weights but the position embeddings."""
        return openvino_model.step_bytes(self._convert())

    def turn(
        self, prompt: list[int], schema: dict[str, Any], max_new_tokens: int
    ) -> dict[str, Any]:
        """Request JSON as a regular expression, with prefix caching."""
        body = {"prompt": prompt, "new_tokens": max_new_tokens, "regex": compact_regex(schema)}
        started = time.perf_counter()
        ids = [id_ for line in self._post_lines("/", body) for id_ in json.loads(line)]
        seconds = time.perf_counter() - started
        tokenizer = Tokenizer.from_file(str(self.setup.checkpoint / "tokenizer.json"))
        text = tokenizer.decode(ids)
        return {"seconds": seconds, "tokens": len(ids), "cached": None, "text": text}

    def _convert(self) -> Any:
        setup = self.setup
        return openvino_model.convert(setup.checkpoint, setup.folder, setup.variant)

    def _command(self, host: str, port: int) -> list[str]:
        setup = self.setup
        numbers = (setup.threads, setup.streams, setup.capacity)
        module = [sys.executable, "-m", "peers.workers.openvino_http", host, str(port)]
        return [*module, str(self._convert()), *map(str, numbers)]

    def _describe(self) -> dict[str, Any]:
        return {"version": f"openvino-genai {version('openvino-genai')}"}

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False
        finally:
            connection.close()

    def _tokens(self, prompt: list[int], new_tokens: int) -> Iterator[int]:
        for line in self._post_lines("/", {"prompt": prompt, "new_tokens": new_tokens}):
            yield len(json.loads(line))


if __name__ == "__main__":
    run_worker(OpenVinoServer)
