"""Benchmark of the HTTP gateway: time that it adds to gRPC.

    python benchmarks/gateway.py [--model DIR] [--new-tokens N] [--repeats N] [--json]

Server, gateway and this program share the machine. Bursts of streams through gRPC and through HTTP
alternate, so that both meet the same state of the machine, and only their differences and ratios
count. The client of HTTP is a few lines on a socket, which cost less than a client library.
"""

import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Self

import typer
from serving import held_out_prompts

from gpt2flow.cli.processes import gateway, server
from gpt2flow.client import AsyncClient, Generation, Options, Sampling

_STREAMS = (1, 16)
_SECONDS = 120.0


@dataclass(frozen=True)
class Times:
    """Times of one stream, in milliseconds.

    Attributes:
        first: Time to the first token.
        token: Time of each further token.
    """

    first: float
    token: float


@dataclass(frozen=True)
class Comparison:
    """Medians over the streams of all bursts, in milliseconds.

    Attributes:
        streams: Number of concurrent streams.
        grpc: Times through gRPC.
        http: Times through the gateway.
    """

    streams: int
    grpc: Times
    http: Times

    @property
    def added_first(self) -> float:
        """Milliseconds that the gateway adds to the first token."""
        return self.http.first - self.grpc.first

    @property
    def token_ratio(self) -> float:
        """Ratio of the times of a further token."""
        return self.http.token / self.grpc.token


# Function that runs one stream on a prompt.
Run = Callable[[Sequence[int]], Awaitable[Times]]


class HttpStream:
    """Client of one connection, which reads events and no more."""

    def __init__(self, host: str, port: int, model: str, new_tokens: int) -> None:
        self._address = host, port
        self._fields = {
            "model": model,
            "max_tokens": new_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
        self._new_tokens = new_tokens

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def run(self, prompt: Sequence[int]) -> Times:
        """Run one stream."""
        body = json.dumps(self._fields | {"prompt": list(prompt)}).encode()
        head = (
            "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        start = perf_counter()
        self._writer.write(head.encode() + body)
        first = last = 0.0
        while True:
            line = await self._reader.readline()
            if line.startswith(b"data: {"):
                last = perf_counter()
                first = first or last
            elif line == b"0\r\n":
                await self._reader.readline()
                break
            elif not line:
                raise RuntimeError("the gateway closed the connection")
        return _times(start, first, last, self._new_tokens)


def _times(start: float, first: float, last: float, tokens: int) -> Times:
    if not first:
        raise RuntimeError("a stream had no token")
    return Times((first - start) * 1000, (last - first) / (tokens - 1) * 1000)


async def _grpc_stream(client: AsyncClient, options: Options, prompt: Sequence[int]) -> Times:
    start = perf_counter()
    first = last = 0.0
    async for item in client.stream(prompt, options):
        last = perf_counter()
        first = first or last
        if isinstance(item, Generation) and item.usage.completion_tokens != options.max_new_tokens:
            raise RuntimeError(f"a stream ended early: {item.candidates[0].finish_reason}")
    return _times(start, first, last, options.max_new_tokens or 0)


async def _compare(
    runs: dict[str, Sequence[Run]], prompts: Iterator[list[int]], streams: int, repeats: int
) -> Comparison:
    """Return the medians of bursts, gRPC and HTTP by turns.

    Args:
        runs: Functions that run a stream, by the way that they take; one a stream.
        prompts: Prompts that no stream has had.
        streams: Streams of a burst.
        repeats: Bursts of each way, after one to warm up.
    """
    found: dict[str, list[Times]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, ways in runs.items():
            chosen = list(islice(prompts, streams))
            if len(chosen) < streams:
                raise RuntimeError("held-out text too short; lower --repeats")
            burst = await asyncio.gather(
                *(run(prompt) for run, prompt in zip(ways, chosen, strict=False))
            )
            found[name] += burst if repeat else []
    medians = {
        name: Times(
            statistics.median(each.first for each in times),
            statistics.median(each.token for each in times),
        )
        for name, times in found.items()
    }
    return Comparison(streams, **medians)


async def _measure(
    address: str, url: str, prompt_tokens: int, new_tokens: int, repeats: int
) -> list[Comparison]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    options = Options(Sampling(temperature=0.0), max_new_tokens=new_tokens, ignore_eos=True)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(AsyncClient(address, timeout=_SECONDS, retry=None))
        name = (await client.model()).name
        connections = [
            await stack.enter_async_context(HttpStream(host, int(port), name, new_tokens))
            for _ in range(max(_STREAMS))
        ]

        def run_grpc(prompt: Sequence[int]) -> Awaitable[Times]:
            return _grpc_stream(client, options, prompt)

        runs: dict[str, Sequence[Run]] = {
            "grpc": [run_grpc] * max(_STREAMS),
            "http": [each.run for each in connections],
        }
        prompts = await held_out_prompts(client, prompt_tokens)
        return [await _compare(runs, prompts, streams, repeats) for streams in _STREAMS]


def main(
    model: Annotated[
        Path, typer.Option(help="Bundle directory.", exists=True, file_okay=False)
    ] = Path("models/shop"),
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens per prompt.")] = 128,
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens to generate per stream.")] = 128,
    repeats: Annotated[int, typer.Option(min=1, help="Bursts of each way.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compare the gateway with gRPC on MODEL, at 1 and 16 streams."""
    with (
        tempfile.TemporaryDirectory() as name,
        server(Path(model), Path(name)) as address,
        gateway(address, Path(name)) as url,
    ):
        rows = asyncio.run(_measure(address, url, prompt_tokens, new_tokens, repeats))
    if as_json:
        json.dump([_row(each) for each in rows], sys.stdout, indent=1)
        return
    print(
        "| streams | first token, gRPC (ms) | gateway (ms) | added (ms) "
        "| further token, gRPC (ms) | gateway (ms) | ratio |\n|---|---|---|---|---|---|---|"
    )
    for each in rows:
        print(
            f"| {each.streams} | {each.grpc.first:.1f} | {each.http.first:.1f} "
            f"| {each.added_first:+.1f} | {each.grpc.token:.2f} | {each.http.token:.2f} "
            f"| {each.token_ratio:.2f} |"
        )


def _row(each: Comparison) -> dict[str, Any]:
    return {**asdict(each), "added_first": each.added_first, "token_ratio": each.token_ratio}


if __name__ == "__main__":
    typer.run(main)
