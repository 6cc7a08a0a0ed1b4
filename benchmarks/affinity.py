"""Benchmark of session affinity: share of cached prompt tokens.

    python benchmarks/affinity.py [--sessions N] [--turns N] [--slots N] [--json]

Each session is a conversation whose prompt grows by a message and the model's answer. Its turns go
to one of two servers: with affinity always to the same one, by rendezvous hashing, and without to
the next in turn. One server with the slots of both is the most that affinity can reach. All servers
are processes of the same bundle on this machine.
"""

import json
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from gpt2flow.cli.processes import server
from gpt2flow.client import Client, Options, Sampling

_WORDS: Final = ("umbrella", "backpack", "lamp", "kettle", "jacket", "blue", "large", "two", "old")
_OPTIONS: Final = Options(Sampling(temperature=0), max_new_tokens=16)

# Conversations by session.
Prompts = dict[str, str]


@contextmanager
def fleet(model: Path, servers: int, slots: int) -> Iterator[list[str]]:
    """Serve a bundle from several processes, and yield their addresses."""
    with ExitStack() as stack:
        addresses = []
        for _ in range(servers):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            options = ("--threads", "1", "--max-sequences", str(slots))
            addresses.append(stack.enter_context(server(model, folder, *options)))
        yield addresses


def extend(prompts: Prompts, session: str, turn: int) -> str:
    """Add a message to a conversation, and return the prompt."""
    words = random.Random(f"{session}/{turn}").choices(_WORDS, k=8)
    start = "" if turn else f"<|state|>guest {session}"
    prompts[session] = prompts.get(session, "") + f"{start}<|user|>{' '.join(words)}<|act|>"
    return prompts[session]


def converse(addresses: Sequence[str], sessions: int, turns: int, *, affinity: bool) -> float:
    """Hold all conversations, and return the share of cached tokens.

    The first prompt of a conversation cannot be cached, wherever it goes.
    """
    names = [f"customer {number}" for number in range(sessions)]
    prompts: Prompts = {}
    cached = given = 0
    with Client(addresses) as client:
        for turn in range(turns):
            # In another order each turn, so that turns without affinity do not repeat by chance.
            for name in random.Random(turn).sample(names, len(names)):
                prompt = extend(prompts, name, turn)
                session = name if affinity else None
                answer = client.generate(prompt, _OPTIONS, session=session)
                prompts[name] += answer.text
                if turn:
                    cached += answer.usage.cached_tokens
                    given += answer.usage.prompt_tokens
    return cached / given


def main(
    model: Annotated[
        Path, typer.Option(help="Bundle directory.", exists=True, file_okay=False)
    ] = Path("models/shop"),
    sessions: Annotated[int, typer.Option(min=1, help="Number of conversations.")] = 24,
    turns: Annotated[int, typer.Option(min=2, help="Turns of a conversation.")] = 6,
    slots: Annotated[int, typer.Option(min=1, help="Slots of each of two servers.")] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure cached prompt tokens on two servers, with and without affinity."""
    shares = {}
    for name, servers, affinity in (
        ("two servers, without affinity", 2, False),
        ("two servers, with affinity", 2, True),
        ("one server with the slots of both", 1, False),
    ):
        # New servers, whose caches are empty.
        with fleet(model, servers, slots * 2 // servers) as addresses:
            shares[name] = converse(addresses, sessions, turns, affinity=affinity)
    if as_json:
        json.dump(shares, sys.stdout, indent=1)
        return
    print("| servers | cached tokens |\n|---|---|")
    for name, share in shares.items():
        print(f"| {name} | {share:.0%} |")


if __name__ == "__main__":
    typer.run(main)
