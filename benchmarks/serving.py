"""Benchmark of a bundle through gRPC: single-stream latency, multi-stream throughput.

`gpt2flow bench` measures any server under any load. This script runs the one load whose figures
stand in `docs/performance.md`, so that they stay comparable.

Decoding is greedy and does not end early; prompts are held-out text. After a warm-up, the median of
several repeats counts. Run it on a quiet machine. Figures of two machines cannot be compared.
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

from gpt2flow.cli.load.loops import send
from gpt2flow.cli.load.measurements import Record
from gpt2flow.cli.load.workload import Request
from gpt2flow.cli.processes import server
from gpt2flow.client import AsyncClient, Options, Sampling

HELD_OUT = Path(__file__).parents[1] / "tests" / "heldout" / "messages.jsonl"
# Tokens between the starts of consecutive prompts.
_STRIDE = 11
_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class Figures:
    """Medians over the repeats of one number of streams.

    Attributes:
        streams: Number of concurrent streams.
        time_to_first_token_ms: Time to first token, in milliseconds.
        inter_token_latency_ms: Inter-token latency, in milliseconds.
        tokens_per_second: Throughput of all streams together.
    """

    streams: int
    time_to_first_token_ms: float
    inter_token_latency_ms: float
    tokens_per_second: float


def main(
    model: Annotated[
        Path, typer.Option(help="Bundle directory.", exists=True, file_okay=False)
    ] = Path("models/shop"),
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens per prompt.")] = 128,
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens to generate per stream.")] = 128,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats after the warm-up.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Serve MODEL and measure it with 1, 4, 8 and 16 streams."""
    with tempfile.TemporaryDirectory() as name, server(model, Path(name)) as address:
        rows = asyncio.run(_measure(address, prompt_tokens, new_tokens, repeats))
    if as_json:
        json.dump([asdict(row) for row in rows], sys.stdout, indent=1)
        return
    print(
        "| streams | time to first token (ms) | inter-token latency (ms) | tokens/s |\n"
        "|---|---|---|---|"
    )
    for row in rows:
        print(
            f"| {row.streams} | {row.time_to_first_token_ms:.1f} "
            f"| {row.inter_token_latency_ms:.2f} | {row.tokens_per_second:.0f} |"
        )


async def _measure(
    address: str, prompt_tokens: int, new_tokens: int, repeats: int
) -> list[Figures]:
    async with AsyncClient(address, timeout=_TIMEOUT_SECONDS, retry=None) as client:
        prompts = await held_out_prompts(client, prompt_tokens)
        return [
            await _measure_streams(client, prompts, streams, new_tokens, repeats)
            for streams in (1, 4, 8, 16)
        ]


async def held_out_prompts(client: AsyncClient, length: int) -> Iterator[list[int]]:
    """Return prompts of `length` tokens from different offsets of the held-out text.

    Every offset differs, so that no prefix cache helps.
    """
    lines = HELD_OUT.read_text(encoding="utf-8").splitlines()
    text = " ".join(json.loads(line)["message"] for line in lines)
    ids = [token.id for token in await client.tokenize(text)]
    starts = range(0, len(ids) - length, _STRIDE)
    return (ids[start : start + length] for start in starts)


async def _measure_streams(
    client: AsyncClient, prompts: Iterator[list[int]], streams: int, new_tokens: int, repeats: int
) -> Figures:
    options = Options(
        decoding=Sampling(temperature=0.0),
        max_new_tokens=new_tokens,
        ignore_eos=True,
        token_ids=True,
    )
    records: list[Record] = []
    throughputs = []
    for repeat in range(repeats + 1):
        requests = [Request(prompt, options) for prompt in islice(prompts, streams)]
        # All start at once, unlike users of a closed loop: first tokens wait for every prefill.
        started = time.perf_counter()
        burst = await asyncio.gather(
            *(send(client, each, seconds=_TIMEOUT_SECONDS) for each in requests)
        )
        seconds = time.perf_counter() - started
        if repeat:  # the first one is the warm-up
            records += burst
            throughputs.append(streams * new_tokens / seconds)
    if len(records) < streams * repeats:
        raise RuntimeError(
            f"held-out text too short: {len(records)} of {streams * repeats} requests;"
            " lower --repeats"
        )
    if wrong := next((record for record in records if record.output_tokens != new_tokens), None):
        raise RuntimeError(
            f"stream ended early: {wrong.output_tokens} of {new_tokens} tokens, {wrong.status}"
        )
    return Figures(
        streams,
        statistics.median(record.ttft or 0.0 for record in records) * 1000,
        statistics.median(record.mean_inter_token or 0.0 for record in records) * 1000,
        statistics.median(throughputs),
    )


if __name__ == "__main__":
    typer.run(main)
