"""Keeps a server busy for long and watches what it holds: `make soak`.

    PYTHONPATH=benchmarks python -m soak --minutes 20

A server process of its own, and client processes that send a mix of everything
at a part of what the server was first measured to manage. Fails when memory,
descriptors, threads or tasks grow, when a request is answered with another status
than its kind should be, or when anything is left in the end.
"""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from typing import Annotated, Any, Final, Self

import grpc
import typer
from rich.console import Console
from rich.table import Table
from soak.kinds import ALWAYS_RIGHT, KINDS, fill_grammars
from soak.plot import svg
from soak.samples import LIMITS, Sample, growth, metric, percentile, take
from soak.traffic import BURST, BURST_SECONDS

from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub

CLIENTS: Final = 2
_CALIBRATION_SECONDS: Final = 15.0
_START_SECONDS: Final = 120.0
# What none of may be there when all requests have ended, and how many tasks more than before.
_NOTHING_LEFT: Final = ("requests_running", "requests_waiting", "slots_used")
_MORE_TASKS: Final = 4
# After the last request was sent.
_END_SECONDS: Final = 120.0


class Clients:
    """Client processes, and what they have told; left over ones end with the block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def __init__(self, address: str, rate: float, seconds: float) -> None:
        """Start them; `rate` is of all together."""
        self.records: list[dict[str, Any]] = []
        self._threads = []
        self._processes = []
        for number in range(CLIENTS):
            arguments = [address, str(rate / CLIENTS), str(seconds), str(number)]
            command = [sys.executable, "-m", "soak.traffic", *arguments]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            self._processes.append(process)
            self._threads.append(Thread(target=self._listen, args=[process], daemon=True))
            self._threads[-1].start()

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.records.append(json.loads(line))

    @property
    def running(self) -> bool:
        """Whether any of them is still there."""
        return any(process.poll() is None for process in self._processes)

    def end(self) -> bool:
        """Wait for them; returns whether all ended by themselves and well."""
        deadline = time.monotonic() + _END_SECONDS
        while self.running and time.monotonic() < deadline:
            time.sleep(0.1)
        well = True
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            well = process.wait() == 0 and well
        for thread in self._threads:
            thread.join()
        return well


@contextmanager
def server(model: Path, folder: Path) -> Iterator[tuple[int, str, int]]:
    """Serve a bundle; yields the process id, the address and the port of the metrics."""
    ready, log = folder / "port", folder / "server.log"
    command = [sys.executable, "-m", "gpt2flow.cli", "serve", "--model", str(model)]
    command += ["--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"]
    with log.open("w") as output:
        process = subprocess.Popen([*command, "--ready-file", str(ready)], stderr=output)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        lines = map(json.loads, log.read_text().splitlines())
        metrics = next(line["metrics_port"] for line in lines if line["event"] == "ready")
        yield process.pid, f"127.0.0.1:{ready.read_text().strip()}", metrics
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main(
    minutes: Annotated[float, typer.Option(min=0.5)] = 20.0,
    model: Annotated[Path, typer.Option(help="The bundle.")] = Path("models/shop"),
    load: Annotated[float, typer.Option(min=0.05, max=1.5)] = 0.7,
    every: Annotated[float, typer.Option(min=1, help="Seconds between samples.")] = 10.0,
    out: Annotated[Path, typer.Option(help="Folder of what is written.")] = Path("build/soak"),
) -> None:
    """Soak a server on MODEL for MINUTES, at LOAD of what it manages."""
    # A killed run must not leave the processes behind that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pid, address, port = stack.enter_context(server(model, folder))
        asyncio.run(_fill(address))
        capacity = _capacity(address)
        rate = max(load * capacity - CLIENTS * BURST / BURST_SECONDS, 0.5)
        console.print(
            f"{capacity:.1f} requests/s is what it manages; {rate:.1f} are sent, and "
            f"{CLIENTS * BURST} at once every {BURST_SECONDS:.0f} s",
            soft_wrap=True,
        )
        samples, records, faults = _soak(console, (pid, address, port), rate, minutes * 60, every)
    faults += _wrong(records)
    for name in LIMITS:
        grown, most = growth(samples, name)
        console.print(f"{name}: growth {grown:+.2f}, at most {most:.2f}")
        if grown > most:
            faults.append(f"{name} grew by {grown:.2f}, at most {most:.2f} was allowed")
    _write(out, samples, records, faults, {"minutes": minutes, "rate": rate, "load": load})
    console.print(_by_kind(records))
    for fault in faults:
        console.print(f"[red]{fault}[/red]", highlight=False)
    console.print(f"{out}/soak.json, {out}/soak.svg")
    raise typer.Exit(1 if faults else 0)


async def _fill(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        await fill_grammars(InferenceServiceStub(channel))


def _capacity(address: str) -> float:
    """Return how many requests a second the server manages when it is never idle."""
    began = time.monotonic()
    with Clients(address, 0, _CALIBRATION_SECONDS) as clients:
        if not clients.end():
            raise RuntimeError("a client process failed")
    return len(clients.records) / (time.monotonic() - began)


def _soak(
    console: Console, watched: tuple[int, str, int], rate: float, seconds: float, every: float
) -> tuple[list[Sample], list[dict[str, Any]], list[str]]:
    pid, address, port = watched
    console.print(
        "  time  req/s  p50 ms  p99 ms  first p50  first p99  RSS MB  fds  threads  tasks  codes",
        soft_wrap=True,
    )
    samples: list[Sample] = []
    idle = metric(port, "tasks")
    began, seen = time.monotonic(), 0
    with Clients(address, rate, seconds) as clients:
        while clients.running and time.monotonic() < began + seconds:
            due = began + (len(samples) + 1) * every
            time.sleep(max(0.0, due - time.monotonic()))
            known = len(clients.records)
            at = time.monotonic() - began
            interval = at - (samples[-1].at if samples else 0.0)
            sample = take(at, interval, clients.records[seen:known], pid, port)
            seen = known
            samples.append(sample)
            console.print(_line(sample), highlight=False, soft_wrap=True)
        faults = [] if clients.end() else ["a client process failed, or a request never ended"]
    time.sleep(2)
    left = {name: metric(port, name) for name in _NOTHING_LEFT}
    faults += [
        f"{number:.0f} {name} are left in the end" for name, number in left.items() if number
    ]
    if (tasks := metric(port, "tasks")) > idle + _MORE_TASKS:
        faults.append(f"{tasks:.0f} tasks are left in the end, {idle:.0f} were there before")
    return samples, clients.records, faults


def _line(s: Sample) -> str:
    codes = " ".join(f"{code}:{count}" for code, count in sorted(s.codes.items()))
    return (
        f"{s.at:6.0f} {s.requests:6.1f} {s.p50_ms:7.1f} {s.p99_ms:7.1f} {s.first_p50_ms:10.1f} "
        f"{s.first_p99_ms:10.1f} {s.rss_mb:7.1f} {s.descriptors:4} {s.threads:8} {s.tasks:6}  "
        f"{codes}"
    )


def _wrong(records: list[dict[str, Any]]) -> list[str]:
    """Tell of answers that are not those of their kind."""
    wrong = Counter(
        (record["kind"], record["code"], record["detail"])
        for record in records
        if record["code"] not in KINDS[record["kind"]].codes | ALWAYS_RIGHT
    )
    return [f"{count} × {' '.join(what)}" for what, count in wrong.most_common(10)]


def _by_kind(records: list[dict[str, Any]]) -> Table:
    table = Table("kind", "requests", "p50 ms", "p99 ms", "first p50", "first p99", "codes")
    for kind in KINDS:
        own = [record for record in records if record["kind"] == kind]
        times = [record["seconds"] * 1000 for record in own]
        firsts = [record["first_token"] * 1000 for record in own if record["first_token"]]
        figures = [percentile(each, part) for each in (times, firsts) for part in (0.5, 0.99)]
        codes = Counter(record["code"] for record in own)
        shown = " ".join(f"{code}:{count}" for code, count in sorted(codes.items()))
        table.add_row(kind, str(len(own)), *(f"{figure:.1f}" for figure in figures), shown)
    return table


def _write(
    out: Path,
    samples: list[Sample],
    records: list[dict[str, Any]],
    faults: list[str],
    settings: dict[str, float],
) -> None:
    codes = Counter(record["code"] for record in records)
    result = {
        **settings,
        "requests": len(records),
        "codes": dict(codes),
        "growth": {name: growth(samples, name) for name in LIMITS},
        "faults": faults,
        "samples": [asdict(sample) for sample in samples],
    }
    (out / "soak.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    caption = f"{len(records)} requests in {settings['minutes']:g} minutes"
    (out / "soak.svg").write_text(svg(samples, caption), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
