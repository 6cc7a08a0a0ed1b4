"""Measures a bundle through gRPC from another process: latency of one stream, throughput of many.

`gpt2flow bench` measures any server under any load; this is the one load whose
figures `docs/performance.md` holds, so that they stay comparable.

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
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from gpt2flow.cli.demo.processes import server
from gpt2flow.cli.load.loops import send
from gpt2flow.cli.load.measurements import Record
from gpt2flow.cli.load.workload import Request
from gpt2flow.client import AsyncClient, Options, Sampling

HELD_OUT = Path(__file__).parents[1] / "tests" / "heldout" / "messages.jsonl"
# Tokens between the starts of two prompts.
_STRIDE = 11
# That one request may take.
_SECONDS = 120.0


@dataclass(frozen=True)
class Figures:
    """Medians over repeats: milliseconds, and tokens a second of all streams together."""

    streams: int
    first_token_ms: float
    between_tokens_ms: float
    tokens_per_second: float


def main(
    model: Annotated[Path, typer.Option(help="The bundle.", exists=True, file_okay=False)] = Path(
        "models/shop"
    ),
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
    async with AsyncClient(address, timeout=_SECONDS, retry=None) as client:
        prompts = await held_out_prompts(client, prompt_tokens)
        return [
            await _streams(client, prompts, streams, new_tokens, repeats)
            for streams in (1, 4, 8, 16)
        ]


async def held_out_prompts(client: AsyncClient, length: int) -> Iterator[list[int]]:
    """Prompts of `length` tokens, each from another place of the text: no cache knows them."""
    lines = HELD_OUT.read_text(encoding="utf-8").splitlines()
    text = " ".join(json.loads(line)["message"] for line in lines)
    ids = [token.id for token in await client.tokenize(text)]
    starts = range(0, len(ids) - length, _STRIDE)
    return (ids[start : start + length] for start in starts)


async def _streams(
    client: AsyncClient, prompts: Iterator[list[int]], streams: int, new_tokens: int, repeats: int
) -> Figures:
    options = Options(
        decoding=Sampling(temperature=0.0),
        max_new_tokens=new_tokens,
        ignore_eos=True,
        token_ids=True,
    )
    records: list[Record] = []
    speed = []
    for repeat in range(repeats + 1):
        requests = [Request(prompt, options) for prompt in islice(prompts, streams)]
        # All at once, unlike users of a closed loop: the first tokens wait for every prompt.
        began = time.perf_counter()
        burst = await asyncio.gather(*(send(client, each, seconds=_SECONDS) for each in requests))
        seconds = time.perf_counter() - began
        if repeat:  # the first one warms up
            records += burst
            speed.append(streams * new_tokens / seconds)
    if len(records) < streams * repeats:
        raise RuntimeError(f"the text has too few prompts for {repeats} repeats")
    if wrong := next((each for each in records if each.output_tokens != new_tokens), None):
        raise RuntimeError(f"{wrong.output_tokens} of {new_tokens} tokens: {wrong.status}")
    return Figures(
        streams,
        statistics.median(each.ttft or 0.0 for each in records) * 1000,
        statistics.median(each.mean_inter_token or 0.0 for each in records) * 1000,
        statistics.median(speed),
    )


if __name__ == "__main__":
    typer.run(main)
