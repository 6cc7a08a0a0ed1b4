"""Measures a bundle through gRPC from another process: latency of one stream, throughput of many.

Greedy decoding that does not end early, prompts of held-out text, warmed up,
several repeats of which the median counts. Run it on a quiet machine; figures
of two machines cannot be compared.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from gpt2flow.cli.processes import server
from gpt2flow.client import AsyncClient, Delta, Options, Sampling

HELD_OUT = Path(__file__).parents[1] / "tests" / "heldout" / "messages.jsonl"


@dataclass(frozen=True)
class Figures:
    """Medians over repeats: milliseconds, and tokens a second of all streams together."""

    streams: int
    first_token_ms: float
    between_tokens_ms: float
    tokens_per_second: float


def main(
    model: Annotated[Path, typer.Option(help="The bundle.")] = Path("models/shop"),
    prompt_tokens: Annotated[int, typer.Option(min=1)] = 128,
    new_tokens: Annotated[int, typer.Option(min=2)] = 128,
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Serve MODEL and measure it with 1, 4, 8 and 16 streams."""
    with tempfile.TemporaryDirectory() as name, server(model, Path(name)) as address:
        rows = asyncio.run(_measure(address, prompt_tokens, new_tokens, repeats))
    if as_json:
        json.dump([asdict(row) for row in rows], sys.stdout, indent=1)
        return
    print("| streams | first token (ms) | between tokens (ms) | tokens/s |\n|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.streams} | {row.first_token_ms:.1f} | {row.between_tokens_ms:.2f} "
            f"| {row.tokens_per_second:.0f} |"
        )


async def _measure(
    address: str, prompt_tokens: int, new_tokens: int, repeats: int
) -> list[Figures]:
    async with AsyncClient(address, timeout=120) as client:
        prompts = await _prompts(client, prompt_tokens)
        return [
            await _streams(client, prompts, streams, new_tokens, repeats)
            for streams in (1, 4, 8, 16)
        ]


async def _prompts(client: AsyncClient, length: int) -> list[list[int]]:
    """Sixteen prompts of `length` tokens, each from another place of the text."""
    lines = HELD_OUT.read_text(encoding="utf-8").splitlines()
    text = " ".join(json.loads(line)["message"] for line in lines)
    ids = [token.id for token in await client.tokenize(text)]
    return [ids[i * length // 2 :][:length] for i in range(16)]


async def _streams(
    client: AsyncClient, prompts: list[list[int]], streams: int, new_tokens: int, repeats: int
) -> Figures:
    first, between, speed = [], [], []
    for repeat in range(repeats + 1):
        began = time.perf_counter()
        times = await asyncio.gather(
            *(_stream(client, prompts[i], new_tokens) for i in range(streams))
        )
        seconds = time.perf_counter() - began
        if repeat:  # the first one warms up
            first += [t[0] for t in times]
            between += [(t[-1] - t[0]) / (new_tokens - 1) for t in times]
            speed.append(streams * new_tokens / seconds)
    return Figures(
        streams,
        statistics.median(first) * 1000,
        statistics.median(between) * 1000,
        statistics.median(speed),
    )


async def _stream(client: AsyncClient, prompt: list[int], new_tokens: int) -> list[float]:
    """Seconds from the call to each message with tokens."""
    options = Options(
        decoding=Sampling(temperature=0.0),
        max_new_tokens=new_tokens,
        ignore_eos=True,
        token_ids=True,
    )
    began, times, count = time.perf_counter(), [], 0
    async for item in client.stream(prompt, options):
        if isinstance(item, Delta) and item.token_ids:
            times.append(time.perf_counter() - began)
            count += len(item.token_ids)
    if count != new_tokens:
        raise RuntimeError(f"{count} tokens instead of {new_tokens}")
    return times


if __name__ == "__main__":
    typer.run(main)
