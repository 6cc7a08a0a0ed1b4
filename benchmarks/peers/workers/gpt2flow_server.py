"""gpt2flow through gRPC: a server process, with this process as the client."""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Coroutine
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from peers.workers.bundle import find_bundle, prepare_bundle, step_bytes
from peers.workers.child import Child
from peers.workers.loop import Arrivals, Setup, Worker, run_worker

from gpt2flow.client import (
    AsyncClient,
    BeamSearch,
    Delta,
    Generation,
    JsonSchema,
    Options,
    Sampling,
)

_TIMEOUT_SECONDS = 120.0
Result = TypeVar("Result")

_GREEDY = Sampling(temperature=0.0)


class Gpt2FlowServer(Worker):
    """`gpt2flow serve` with a slot for each stream."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._server: Child | None = None
        self._address = ""
        self._runner = asyncio.Runner()
        self._client: AsyncClient | None = None

    def prepare(self) -> None:
        """Export the checkpoint."""
        prepare_bundle(self.setup)

    def load(self) -> dict[str, Any]:
        """Start the server."""
        self.unload()
        setup, bundle = self.setup, find_bundle(self.setup)
        with tempfile.TemporaryDirectory() as folder:
            ready = Path(folder) / "port"
            command = [sys.executable, "-m", "gpt2flow.cli", "serve", "--model", str(bundle)]
            command += ["--address", "127.0.0.1:0", "--ready-file", str(ready)]
            command += ["--threads", str(setup.threads), "--max-sequences", str(setup.streams)]
            if "speculative" not in setup.variant:
                command.append("--no-speculation")
            self._server = Child([*command, *setup.options.get("serve", [])], ready.exists)
            self._address = f"127.0.0.1:{ready.read_text(encoding='ascii').strip()}"
        self._client = self._run(self._connect())
        return {"version": f"gpt2flow {version('gpt2flow')}"}

    def unload(self) -> None:
        """Stop the server."""
        if self._client:
            self._run(self._client.close())
        if self._server:
            self._server.stop()
        self._client = self._server = None

    def step_bytes(self) -> int:
        """Return the bytes of the layers and the head."""
        return step_bytes(find_bundle(self.setup))

    def stream(self, prompts: list[list[int]], new_tokens: int) -> list[Arrivals]:
        """Send all requests at once."""
        options = Options(_GREEDY, max_new_tokens=new_tokens, ignore_eos=True, token_ids=True)

        async def burst() -> list[Arrivals]:
            started = time.perf_counter()
            streams = (self._arrivals(prompt, options, started) for prompt in prompts)
            return list(await asyncio.gather(*streams))

        return self._run(burst())

    def beside(self, prompts: list[list[int]], prompt: list[int], new_tokens: int) -> float:
        """Send a request once all streams have begun."""
        options = Options(_GREEDY, max_new_tokens=new_tokens, ignore_eos=True, token_ids=True)

        async def arrive() -> float:
            begun = [asyncio.Event() for _ in prompts]
            streams = [
                asyncio.create_task(self._arrivals(each, options, 0.0, event))
                for each, event in zip(prompts, begun, strict=True)
            ]
            for event in begun:
                await event.wait()
            started = time.perf_counter()
            short = replace(options, max_new_tokens=2)
            first = (await self._arrivals(prompt, short, started))[0]
            ended = any(each.done() for each in streams)
            await asyncio.gather(*streams)
            if ended:
                raise RuntimeError("a stream ended before the prompt's tokens arrived")
            return first

        return self._run(arrive())

    def beams(self, prompt: list[int], beams: int, new_tokens: int) -> float:
        """Run a beam search, and return its seconds."""
        search = BeamSearch(beams)
        options = Options(search, max_new_tokens=new_tokens, ignore_eos=True)
        started = time.perf_counter()
        self._run(self._connected.generate(prompt, options))
        return time.perf_counter() - started

    def turn(
        self, prompt: list[int], schema: dict[str, Any], max_new_tokens: int
    ) -> dict[str, Any]:
        """Request JSON under the schema."""
        constraint = JsonSchema(json.dumps(schema))
        options = Options(_GREEDY, max_new_tokens=max_new_tokens, constraint=constraint)
        started = time.perf_counter()
        text, end = self._run(self._collect(prompt, options))
        return {
            "seconds": time.perf_counter() - started,
            "tokens": end.usage.completion_tokens,
            "cached": end.usage.cached_tokens,
            "text": text,
        }

    def memory(self) -> int:
        """Return the resident memory of the server, in bytes."""
        if self._server is None:
            raise RuntimeError("model not loaded; call load first")
        return self._server.resident_bytes()

    async def _connect(self) -> AsyncClient:
        return AsyncClient(self._address, timeout=_TIMEOUT_SECONDS, retry=None)

    async def _arrivals(
        self,
        prompt: list[int],
        options: Options,
        started: float,
        begun: asyncio.Event | None = None,
    ) -> Arrivals:
        """Return a stream's arrival times; its first token or end sets `begun`."""
        arrivals: Arrivals = []
        try:
            async for item in self._connected.stream(prompt, options):
                if isinstance(item, Delta):
                    arrivals += [time.perf_counter() - started] * len(item.token_ids)
                if begun and arrivals:
                    begun.set()
        finally:
            if begun:
                begun.set()
        return arrivals

    async def _collect(self, prompt: list[int], options: Options) -> tuple[str, Generation]:
        """Return the text and the end of a stream.

        The request is streamed because that of llama-server is.
        """
        text = ""
        async for item in self._connected.stream(prompt, options):
            if isinstance(item, Generation):
                return text, item
            text += item.text
        raise RuntimeError("the stream ended without a final message")

    @property
    def _connected(self) -> AsyncClient:
        if self._client is None:
            raise RuntimeError("model not loaded; call load first")
        return self._client

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(work)


if __name__ == "__main__":
    run_worker(Gpt2FlowServer)
