"""llama.cpp's server over HTTP."""

import json
import time
from collections.abc import Iterator
from typing import Any

from peers.workers import llama_build
from peers.workers.http_worker import HttpWorker
from peers.workers.loop import run_worker

_GREEDY = {"temperature": 0.0, "top_k": 1, "samplers": ["top_k"], "cache_prompt": False}


class LlamaServer(HttpWorker):
    """llama-server with a slot for each stream."""

    def prepare(self) -> None:
        """Build the server and convert the checkpoint."""
        llama_build.build()
        self._convert()

    def step_bytes(self) -> int:
        """Return the bytes of all weights but the position embeddings."""
        size = int(self._get("/v1/models")["data"][0]["meta"]["size"])
        return size - self.setup.position_bytes

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

    def _convert(self) -> Any:
        return llama_build.convert(self.setup.checkpoint, self.setup.folder, self.setup.variant)

    def _command(self, host: str, port: int) -> list[str]:
        options = {
            "model": self._convert(),
            "host": host,
            "port": port,
            "threads": self.setup.threads,
            "parallel": self.setup.streams,
            "ctx-size": self.setup.streams * self.setup.capacity,
            # The slots suffice as a cache; prompts kept beside them would only use memory.
            "cache-ram": 0,
            "log-verbosity": 1,
        }
        command = [str(llama_build.server_binary())]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        return command

    def _describe(self) -> dict[str, Any]:
        return {"version": f"llama.cpp {self._get('/props').get('build_info', '?')}"}

    def _tokens(self, prompt: list[int], new_tokens: int) -> Iterator[int]:
        """Yield the tokens of each event, as the server counts them.

        A token that ends inside a character has no event of its own. It arrives with the next
        complete character, or with the final event.
        """
        body = {**_GREEDY, "prompt": prompt, "n_predict": new_tokens, "ignore_eos": True}
        arrived = 0
        for event in self._events(body):
            yield event["tokens_predicted"] - arrived
            arrived = event["tokens_predicted"]

    def _events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the events of a streamed completion."""
        for line in self._post_lines("/completion", {**body, "stream": True}):
            if line.startswith(b"data: "):
                yield json.loads(line[len(b"data: ") :])


if __name__ == "__main__":
    run_worker(LlamaServer)
