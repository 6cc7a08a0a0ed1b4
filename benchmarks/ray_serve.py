"""Benchmark of Ray Serve: two replicas against one server of two threads.

    make ray-env && python benchmarks/ray_serve.py [--rounds N] [--json]

Both generate the same tokens from the same prompts for the same number of concurrent calls, in
turns. The figure is the ratio of their throughputs, the median of all rounds.
"""

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from gpt2flow.cli.processes import server
from gpt2flow.client import AsyncClient, Options, Sampling

PROJECT: Final = Path(__file__).parents[1]
PYTHON: Final = PROJECT / "build" / "ray" / "bin" / "python"
_PROMPT: Final = "<|state|>guest<|user|>{} umbrellas and a lamp please<|act|>"
_SLOTS: Final = 16


class RayCluster:
    """Running Ray cluster of this machine.

    Attributes:
        address: Address of its gRPC proxy.
    """

    def __init__(self, process: "subprocess.Popen[str]", address: str) -> None:
        self.address = address
        self._process = process

    def ask(self, line: str) -> int:
        """Send `kill` or `replicas`, and return the number in the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


@contextmanager
def ray_cluster(model: Path, directory: Path, replicas: int) -> Iterator[RayCluster]:
    """Run replicas of one thread on a Ray cluster.

    Args:
        model: Directory of the bundle.
        directory: Directory to write settings and log to.
        replicas: Number of replicas.

    Raises:
        RuntimeError: The environment of Ray is missing, or the cluster did not start.
    """
    if not PYTHON.exists():
        raise RuntimeError(f"{PYTHON} is missing; run `make ray-env`")
    config = directory / "gpt2flow.toml"
    config.write_text(
        f"[engine]\nthreads = 1\nmax_sequences = {_SLOTS}\n\n"
        f'[[models]]\nname = "shop"\npath = {json.dumps(str(model.resolve()))}\n',
        encoding="utf-8",
    )
    port, http_port = _free_ports(2)
    program = PROJECT / "deploy" / "ray" / "local_cluster.py"
    command = [str(PYTHON), str(program), "--config", str(config), "--port", str(port)]
    command += ["--http-port", str(http_port), "--replicas", str(replicas)]
    log = directory / "ray.log"
    # Nothing leaves this machine.
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"Ray did not start: {log.read_text(errors='replace')[-2000:]}")
        try:
            yield RayCluster(process, f"127.0.0.1:{port}")
        finally:
            process.stdin.close()
            process.wait(60)


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


async def measure(address: str, streams: int, calls: int) -> float:
    """Return the generated tokens per second of concurrent unary calls."""
    options = Options(Sampling(temperature=0.0), max_new_tokens=64, ignore_eos=True)
    numbers = iter(range(calls))
    tokens = 0
    async with AsyncClient(address, timeout=300.0) as client:

        async def work() -> None:
            nonlocal tokens
            for number in numbers:
                answer = await client.generate(_PROMPT.format(number), options)
                tokens += answer.usage.completion_tokens

        start = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(streams)))
        return tokens / (time.perf_counter() - start)


def main(
    model: Annotated[
        Path, typer.Option(help="Bundle directory.", exists=True, file_okay=False)
    ] = Path("models/shop"),
    streams: Annotated[int, typer.Option(min=1, help="Concurrent calls.")] = 16,
    calls: Annotated[int, typer.Option(min=1, help="Calls of a round.")] = 96,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, after one to warm up.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure two Ray replicas of one thread and one server of two."""
    one, two = [], []
    with tempfile.TemporaryDirectory() as name:
        options = ("--threads", "2", "--max-sequences", str(_SLOTS))
        with (
            server(model, Path(name), *options) as address,
            ray_cluster(model, Path(name), 2) as cluster,
        ):
            for _ in range(rounds + 1):
                one.append(asyncio.run(measure(address, streams, calls)))
                two.append(asyncio.run(measure(cluster.address, streams, calls)))
    ratios = [replicas / single for single, replicas in zip(one[1:], two[1:], strict=True)]
    figures = {
        "one server of two threads, tokens/s": statistics.median(one[1:]),
        "two Ray replicas of one thread, tokens/s": statistics.median(two[1:]),
        "ratio": statistics.median(ratios),
    }
    if as_json:
        json.dump(figures, sys.stdout, indent=1)
        return
    for figure, value in figures.items():
        print(f"{figure}: {value:.2f}")


if __name__ == "__main__":
    typer.run(main)
