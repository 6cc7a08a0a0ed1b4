"""Measures what an idle server costs, and whether the first token after a pause comes later.

The pauses take turns, so that a slow moment of the machine meets all of them. Linux only.
"""

import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from gpt2flow.cli.demo.processes import server
from gpt2flow.client import Client, Delta, Options, Sampling

_OPTIONS = Options(decoding=Sampling(temperature=0.0), max_new_tokens=8, ignore_eos=True)
_IDLE_SECONDS = 20.0


def main(
    model: Annotated[Path, typer.Option(help="The bundle.", exists=True, file_okay=False)] = Path(
        "models/shop"
    ),
    pauses: Annotated[str, typer.Option(help="Seconds, between commas.")] = "0,1,5",
    prompt_tokens: Annotated[int, typer.Option(min=1)] = 128,
    repeats: Annotated[int, typer.Option(min=1)] = 10,
) -> None:
    """Serve MODEL; measure its processor time while idle, and first tokens after pauses."""
    seconds = [float(each) for each in pauses.split(",")]
    with tempfile.TemporaryDirectory() as name, server(model, Path(name)) as address:
        [process] = _children()
        with Client(address) as client:
            for _ in range(3):  # warms up
                _first_token(client, prompt_tokens)
            share = _idle_share(process)
            times = _first_tokens(client, seconds, prompt_tokens, repeats)
    typer.echo(f"idle: {share:.2%} of one core over {_IDLE_SECONDS:g} s")
    typer.echo("| pause (s) | first token, median (ms) | worst (ms) |\n|---|---|---|")
    for pause, each in zip(seconds, times, strict=True):
        typer.echo(f"| {pause:g} | {statistics.median(each):.1f} | {max(each):.1f} |")


def _first_tokens(
    client: Client, pauses: Sequence[float], prompt_tokens: int, repeats: int
) -> list[list[float]]:
    """Return the milliseconds to the first token, by pause."""
    times: list[list[float]] = [[] for _ in pauses]
    for _ in range(repeats):
        for pause, own in zip(pauses, times, strict=True):
            time.sleep(pause)
            own.append(_first_token(client, prompt_tokens))
    return times


def _first_token(client: Client, prompt_tokens: int) -> float:
    """Return the milliseconds to the first token of a prompt that no cache knows."""
    prompt = [random.randrange(1, 200) for _ in range(prompt_tokens)]
    started = time.perf_counter()
    stream = client.stream(prompt, _OPTIONS)
    if not isinstance(next(stream), Delta):
        raise TypeError("the stream has no text")
    first = time.perf_counter()
    for _ in stream:
        pass
    return (first - started) * 1e3


def _idle_share(process: int) -> float:
    """Return which part of a core a process takes while nobody asks it for anything."""
    before = _processor_seconds(process)
    time.sleep(_IDLE_SECONDS)
    return (_processor_seconds(process) - before) / _IDLE_SECONDS


def _processor_seconds(process: int) -> float:
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _children() -> list[int]:
    return [int(each) for each in Path("/proc/thread-self/children").read_text().split()]


if __name__ == "__main__":
    typer.run(main)
