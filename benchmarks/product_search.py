"""Benchmark of a search for misspelt products on the shipped model.

    python benchmarks/product_search.py [--typos N] [--json]

Each product of the demo shop is misspelt several times, and the model ranks all products as
continuations of the action that adds one to the cart. `less usual` subtracts the mean score of an
entry over other messages, which removes what the model prefers anyway. The agent's matcher, which
compares spellings, ranks the same products for comparison.
"""

import json
import random
import statistics
import string
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from gpt2flow.agent.shop.catalogue import load_catalogue
from gpt2flow.agent.shop.matching import match_product
from gpt2flow.cli.processes import server
from gpt2flow.client import BeamSearch, Client, Options, StoredChoices

PROMPT: Final = (
    '<|state|>guest<|user|>i want a {} please<|act|>{{"action":"add_to_cart","product":"'
)
# Misspellings whose scores make up what is usual.
USUAL: Final = 24

Scores = Mapping[str, float]


def misspell(name: str, rng: random.Random) -> str:
    """Leave out, add or replace one or two letters of a name."""
    letters = list(name)
    for _ in range(rng.choice([1, 2])):
        at = rng.randrange(len(letters))
        new = rng.choice(string.ascii_lowercase)
        letters[at : at + rng.choice([0, 1])] = rng.choice([[], [new]])
    return "".join(letters)


def score_all(client: Client, phrase: str, count: int) -> Scores:
    """Return the score of each product for a phrase."""
    beams = BeamSearch(
        count, num_return_sequences=count, length_penalty=0.0, early_stopping="never"
    )
    options = Options(beams, constraint=StoredChoices("products"), ignore_eos=True)
    found = client.generate(PROMPT.format(phrase), options).candidates
    return {each.text: each.beam_score for each in found}


def share_within(
    rankings: Sequence[tuple[str, Sequence[str]]], places: Sequence[int]
) -> dict[str, float]:
    """Return the share of right products within the first places."""
    return {
        str(most): statistics.mean(name in ranked[:most] for name, ranked in rankings)
        for most in places
    }


def rank(scores: Scores, usual: Scores) -> list[str]:
    """Return products by their scores less the usual ones, highest first."""
    return sorted(scores, key=lambda name: scores[name] - usual.get(name, 0.0), reverse=True)


def measure(client: Client, names: Sequence[str], typos: int) -> dict[str, dict[str, float]]:
    """Return the shares of right products of each way to rank them."""
    rng = random.Random(1)
    cases = [(name, misspell(name, rng)) for name in names for _ in range(typos)]
    answers = [(name, score_all(client, phrase, len(names))) for name, phrase in cases]
    others = [score_all(client, misspell(rng.choice(names), rng), len(names)) for _ in range(USUAL)]
    usual = {name: statistics.mean(each[name] for each in others) for name in names}
    plain = [(name, rank(scores, {})) for name, scores in answers]
    less = [(name, rank(scores, usual)) for name, scores in answers]
    spellings = {name: [name] for name in names}
    matched = [(name, match_product(phrase, spellings).suggestions) for name, phrase in cases]
    return {
        "model": share_within(plain, (1, 3, 10)),
        "model, less usual": share_within(less, (1, 3, 10)),
        # It suggests three.
        "matcher of the agent": share_within(matched, (1, 3)),
    }


def main(
    model: Annotated[
        Path, typer.Option(help="Bundle directory.", exists=True, file_okay=False)
    ] = Path("models/shop"),
    typos: Annotated[int, typer.Option(min=1, help="Misspellings of each product.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Rank the products of the demo shop for misspelt ones."""
    names = [item.en for item in load_catalogue().products]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "products.txt"
        path.write_text("\n".join(names) + "\n", encoding="utf-8")
        options = ["--max-sequences", str(len(names)), "--choices", f"products={path}"]
        with server(model, Path(folder), *options) as address, Client(address) as client:
            shares = measure(client, names, typos)
    if as_json:
        json.dump(shares, sys.stdout, indent=1)
        return
    print("| ranked by | first | among 3 | among 10 |\n|---|---|---|---|")
    for way, each in shares.items():
        cells = [f"{each[most]:.0%}" if most in each else "–" for most in ("1", "3", "10")]
        print(f"| {way} | {' | '.join(cells)} |")


if __name__ == "__main__":
    typer.run(main)
