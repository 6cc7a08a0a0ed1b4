"""Measures how often a seeded request gives other tokens in a batch than alone: a Markdown table.

    python benchmarks/reproducibility.py --model DIR [--model DIR …]

With fp32 weights and cache the tokens are the same. A quantized graph takes other operators for
many rows than for few, and rounds what goes into them by rows that run together: what is nearly
equally likely may come out the other way. Prompts are held-out text, each is generated from alone
and together with others, greedily and by sampling with a seed of its own.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from serving import held_out_prompts

from gpt2flow.cli.demo.processes import server
from gpt2flow.client import AsyncClient, Options, Sampling

# For all requests of one batch.
_SECONDS = 120.0
_PROMPT_TOKENS = 48
_NEW_TOKENS = 64
_DECODING = {"greedy": Sampling(temperature=0.0), "sampled": Sampling(temperature=0.8, top_p=0.95)}

Tokens = tuple[int, ...]


def main(
    model: Annotated[
        list[Path], typer.Option(help="A bundle; may repeat.", exists=True, file_okay=False)
    ],
    requests: Annotated[int, typer.Option(min=1)] = 64,
) -> None:
    """Serve each MODEL, and compare what requests give alone and in batches of 4 and of 16."""
    print("| bundle | decoding | batch | answers that differ | tokens before they do |")
    print("|---|---|---|---|---|")
    for bundle in model:
        with tempfile.TemporaryDirectory() as name, server(bundle, Path(name)) as address:
            asyncio.run(_compare(bundle.name, address, requests))


async def _compare(name: str, address: str, count: int) -> None:
    async with AsyncClient(address, timeout=_SECONDS, retry=None) as client:
        found = await held_out_prompts(client, _PROMPT_TOKENS)
        prompts = [prompt for prompt, _ in zip(found, range(count), strict=False)]
        for decoding, sampling in _DECODING.items():
            options = [
                Options(
                    replace(sampling, seed=seed),
                    max_new_tokens=_NEW_TOKENS,
                    ignore_eos=True,
                    token_ids=True,
                )
                for seed in range(len(prompts))
            ]
            alone = await _tokens(client, prompts, options, batch=1)
            for batch in (4, 16):
                together = await _tokens(client, prompts, options, batch=batch)
                shared = [_shared(*pair) for pair in zip(alone, together, strict=True)]
                parted = [length for length in shared if length < _NEW_TOKENS]
                mean = f"{sum(parted) / len(parted):.0f}" if parted else "–"
                share = len(parted) / len(shared)
                print(f"| {name} | {decoding} | {batch} | {share:.0%} | {mean} |", flush=True)


async def _tokens(
    client: AsyncClient, prompts: Sequence[list[int]], options: Sequence[Options], *, batch: int
) -> list[Tokens]:
    """Return what each prompt gives when so many run at once."""
    answers: list[Tokens] = []
    for start in range(0, len(prompts), batch):
        pairs = list(zip(prompts, options, strict=True))[start : start + batch]
        burst = await asyncio.gather(*(client.generate(*pair) for pair in pairs))
        answers += [each.candidates[0].token_ids for each in burst]
    return answers


def _shared(one: Tokens, other: Tokens) -> int:
    """Return how many leading tokens are equal."""
    pairs = zip(one, other, strict=True)
    return next((at for at, (left, right) in enumerate(pairs) if left != right), len(one))


if __name__ == "__main__":
    typer.run(main)
