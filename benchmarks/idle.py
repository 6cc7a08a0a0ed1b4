"""Benchmark of an idle server: processor time, first tokens after pauses.

The pauses are timed round-robin, so that a slow moment of the machine affects all of them. Linux
only.
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

from gpt2flow.cli.processes import server
from gpt2flow.client import Client, Delta, Options, Sampling

_OPTIONS = Options(decoding=Sampling(temperature=0.0), max_new_tokens=8, ignore_eos=True)
_IDLE_SECONDS = 20.0


def main(
    model: Annotated[
        Path, typer.Option(help="Bundle directory.", exists=True, file_okay=False)
    ] = Path("models/shop"),
    pauses: Annotated[str, typer.Option(help="Pauses in seconds, separated by commas.")] = "0,1,5",
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens per prompt.")] = 128,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements per pause.")] = 10,
) -> None:
    """Measure MODEL's processor time while idle, and first tokens after pauses."""
    seconds = [float(pause) for pause in pauses.split(",")]
    with tempfile.TemporaryDirectory() as name, server(model, Path(name)) as address:
        [pid] = _child_pids()
        with Client(address) as client:
            for _ in range(3):  # warm-up
                _measure_first_token(client, prompt_tokens)
            share = _measure_idle_share(pid)
            times = _measure_first_tokens(client, seconds, prompt_tokens, repeats)
    typer.echo(f"idle: {share:.2%} of one core over {_IDLE_SECONDS:g} s")
    typer.echo("| pause (s) | first token, median (ms) | worst (ms) |\n|---|---|---|")
    for pause, taken in zip(seconds, times, strict=True):
        typer.echo(f"| {pause:g} | {statistics.median(taken):.1f} | {max(taken):.1f} |")


def _measure_first_tokens(
    client: Client, pauses: Sequence[float], prompt_tokens: int, repeats: int
) -> list[list[float]]:
    """Return the milliseconds to first token of every repeat, by pause."""
    times: list[list[float]] = [[] for _ in pauses]
    for _ in range(repeats):
        for pause, taken in zip(pauses, times, strict=True):
            time.sleep(pause)
            taken.append(_measure_first_token(client, prompt_tokens))
    return times


def _measure_first_token(client: Client, prompt_tokens: int) -> float:
    """Return the milliseconds to first token of a random, hence uncached, prompt."""
    prompt = [random.randrange(1, 200) for _ in range(prompt_tokens)]
    started = time.perf_counter()
    stream = client.stream(prompt, _OPTIONS)
    if not isinstance(next(stream), Delta):
        raise TypeError("the stream ended before its first token")
    first = time.perf_counter()
    for _ in stream:
        pass
    return (first - started) * 1e3


def _measure_idle_share(pid: int) -> float:
    """Return the fraction of a core that a process uses without requests."""
    before = _read_processor_seconds(pid)
    time.sleep(_IDLE_SECONDS)
    return (_read_processor_seconds(pid) - before) / _IDLE_SECONDS


def _read_processor_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _child_pids() -> list[int]:
    return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]


if __name__ == "__main__":
    typer.run(main)
