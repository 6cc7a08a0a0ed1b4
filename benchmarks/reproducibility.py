"""Benchmark of batch invariance, as a Markdown table.

    python benchmarks/reproducibility.py --model DIR [--model DIR …]

It counts the seeded requests whose tokens differ between a batch and a run alone. On the operators
of gpt2flow, quantized rows have the same bits in any batch, so none differs. On onnxruntime's own,
and in fp32, tokens of nearly equal probability may swap. Prompts are held-out text. Each is
continued alone and in a batch, greedily and by sampling with its own seed.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from serving import held_out_prompts

from gpt2flow.cli.processes import server
from gpt2flow.client import AsyncClient, Options, Sampling

_TIMEOUT_SECONDS = 120.0
_PROMPT_TOKENS = 48
_NEW_TOKENS = 64
_DECODING = {"greedy": Sampling(temperature=0.0), "sampled": Sampling(temperature=0.8, top_p=0.95)}

Tokens = tuple[int, ...]


def main(
    model: Annotated[
        list[Path], typer.Option(help="Bundle directory; may repeat.", exists=True, file_okay=False)
    ],
    requests: Annotated[int, typer.Option(min=1, help="Most requests per bundle.")] = 64,
) -> None:
    """Compare each MODEL's tokens alone and in batches of 4 and 16."""
    print("| bundle | decoding | batch | answers that differ | tokens before they do |")
    print("|---|---|---|---|---|")
    for bundle in model:
        with tempfile.TemporaryDirectory() as name, server(bundle, Path(name)) as address:
            asyncio.run(_compare(bundle.name, address, requests))


async def _compare(name: str, address: str, count: int) -> None:
    async with AsyncClient(address, timeout=_TIMEOUT_SECONDS, retry=None) as client:
        held_out = await held_out_prompts(client, _PROMPT_TOKENS)
        prompts = [prompt for prompt, _ in zip(held_out, range(count), strict=False)]
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
            alone = await _generate(client, prompts, options, batch=1)
            for batch in (4, 16):
                together = await _generate(client, prompts, options, batch=batch)
                prefixes = [_common_prefix(*pair) for pair in zip(alone, together, strict=True)]
                diverged = [length for length in prefixes if length < _NEW_TOKENS]
                mean = f"{sum(diverged) / len(diverged):.0f}" if diverged else "–"
                share = len(diverged) / len(prefixes)
                print(f"| {name} | {decoding} | {batch} | {share:.0%} | {mean} |", flush=True)


async def _generate(
    client: AsyncClient, prompts: Sequence[list[int]], options: Sequence[Options], *, batch: int
) -> list[Tokens]:
    """Return the tokens generated from each prompt, `batch` prompts at a time."""
    answers: list[Tokens] = []
    for start in range(0, len(prompts), batch):
        pairs = list(zip(prompts, options, strict=True))[start : start + batch]
        burst = await asyncio.gather(*(client.generate(*pair) for pair in pairs))
        answers += [generation.candidates[0].token_ids for generation in burst]
    return answers


def _common_prefix(one: Tokens, other: Tokens) -> int:
    """Return the number of leading tokens that are equal."""
    pairs = zip(one, other, strict=True)
    return next((i for i, (left, right) in enumerate(pairs) if left != right), len(one))


if __name__ == "__main__":
    typer.run(main)
