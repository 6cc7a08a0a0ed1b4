"""Soak test of a server under mixed load: `make soak`.

    PYTHONPATH=benchmarks python -m soak --minutes 20

Client processes send all kinds of requests to a server process, at a fraction of its measured
capacity. The test fails when memory, descriptors or threads grow, or when a request ends with an
unexpected status. It also fails when requests, slots or tasks are left at the end.
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
from soak.kinds import ALWAYS_VALID, KINDS, fill_grammars
from soak.plot import write_plots
from soak.samples import LIMITS, Sample, growth, percentile, read_metric, take_sample
from soak.traffic import BURST, BURST_SECONDS

from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub

CLIENTS: Final = 2
_CALIBRATION_SECONDS: Final = 15.0
_START_SECONDS: Final = 120.0
# Metrics that must be zero once all requests have ended.
_IDLE_METRICS: Final = ("requests_running", "requests_waiting", "slots_used")
# Most event-loop tasks beyond those before the first request.
_MAX_EXTRA_TASKS: Final = 4
# Most time for the clients to exit after their last request.
_EXIT_SECONDS: Final = 120.0


class Clients:
    """Client processes, as a context that kills those still running.

    Args:
        address: Address of the server.
        rate: Requests per second of all processes together.
        seconds: Duration of the load.

    Attributes:
        records: Records of the requests that have completed so far.
    """

    def __init__(self, address: str, rate: float, seconds: float) -> None:
        self.records: list[dict[str, Any]] = []
        self._threads = []
        self._processes = []
        for number in range(CLIENTS):
            arguments = [address, str(rate / CLIENTS), str(seconds), str(number)]
            command = [sys.executable, "-m", "soak.traffic", *arguments]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            self._processes.append(process)
            self._threads.append(Thread(target=self._collect, args=[process], daemon=True))
            self._threads[-1].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def _collect(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.records.append(json.loads(line))

    @property
    def running(self) -> bool:
        """True while any process runs."""
        return any(process.poll() is None for process in self._processes)

    def join(self) -> bool:
        """Wait for the processes, and return True if all of them succeeded.

        Processes that exceed the time to exit are killed.
        """
        deadline = time.monotonic() + _EXIT_SECONDS
        while self.running and time.monotonic() < deadline:
            time.sleep(0.1)
        succeeded = True
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            succeeded = process.wait() == 0 and succeeded
        for thread in self._threads:
            thread.join()
        return succeeded


@contextmanager
def server(model: Path, folder: Path) -> Iterator[tuple[int, str, int]]:
    """Serve a bundle in a process of its own.

    Yields:
        Process id, address, and port of the metrics.
    """
    ready, log = folder / "port", folder / "server.log"
    command = [sys.executable, "-m", "gpt2flow.cli", "serve", "--model", str(model)]
    command += ["--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"]
    with log.open("w") as errors:
        process = subprocess.Popen([*command, "--ready-file", str(ready)], stderr=errors)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                output = log.read_text()[-2000:]
                raise RuntimeError(f"server not ready in {_START_SECONDS:g} s, or exited: {output}")
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
    minutes: Annotated[
        float, typer.Option(min=0.5, help="Duration of the load, in minutes.")
    ] = 20.0,
    model: Annotated[Path, typer.Option(help="Bundle directory.")] = Path("models/shop"),
    load: Annotated[
        float, typer.Option(min=0.05, max=1.5, help="Share of the measured capacity.")
    ] = 0.7,
    every: Annotated[float, typer.Option(min=1, help="Seconds between samples.")] = 10.0,
    out: Annotated[Path, typer.Option(help="Directory for soak.json and soak.html.")] = Path(
        "build/soak"
    ),
) -> None:
    """Soak a server on MODEL for MINUTES, at LOAD times its capacity."""
    # A killed run must not leave its child processes behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pid, address, port = stack.enter_context(server(model, folder))
        asyncio.run(_fill_grammar_cache(address))
        capacity = _measure_capacity(address)
        rate = max(load * capacity - CLIENTS * BURST / BURST_SECONDS, 0.5)
        console.print(
            f"capacity: {capacity:.1f} requests/s; load: {rate:.1f} requests/s, and "
            f"{CLIENTS * BURST} requests at once every {BURST_SECONDS:.0f} s",
            soft_wrap=True,
        )
        samples, records, faults = _soak(console, (pid, address, port), rate, minutes * 60, every)
    faults += _unexpected_statuses(records)
    for name in LIMITS:
        grown, limit = growth(samples, name)
        console.print(f"{name}: growth {grown:+.2f}, limit {limit:.2f}")
        if grown > limit:
            faults.append(f"{name} grew by {grown:.2f}, limit {limit:.2f}")
    _write_report(out, samples, records, faults, {"minutes": minutes, "rate": rate, "load": load})
    console.print(_tabulate_by_kind(records))
    for fault in faults:
        console.print(f"[red]{fault}[/red]", highlight=False)
    console.print(f"{out}/soak.json, {out}/soak.html")
    raise typer.Exit(1 if faults else 0)


async def _fill_grammar_cache(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        await fill_grammars(InferenceServiceStub(channel))


def _measure_capacity(address: str) -> float:
    """Return the requests per second that the server completes under constant load."""
    started = time.monotonic()
    with Clients(address, 0, _CALIBRATION_SECONDS) as clients:
        if not clients.join():
            raise RuntimeError("a client process failed")
    return len(clients.records) / (time.monotonic() - started)


def _soak(
    console: Console, served: tuple[int, str, int], rate: float, seconds: float, every: float
) -> tuple[list[Sample], list[dict[str, Any]], list[str]]:
    pid, address, port = served
    console.print(
        "  time  req/s  p50 ms  p99 ms  first p50  first p99  RSS MB  fds  threads  tasks  codes",
        soft_wrap=True,
    )
    samples: list[Sample] = []
    idle = read_metric(port, "tasks")
    started, sampled = time.monotonic(), 0
    with Clients(address, rate, seconds) as clients:
        while clients.running and time.monotonic() < started + seconds:
            due = started + (len(samples) + 1) * every
            time.sleep(max(0.0, due - time.monotonic()))
            received = len(clients.records)
            at = time.monotonic() - started
            interval = at - (samples[-1].at if samples else 0.0)
            sample = take_sample(at, interval, clients.records[sampled:received], pid, port)
            sampled = received
            samples.append(sample)
            console.print(_format_sample(sample), highlight=False, soft_wrap=True)
        faults = [] if clients.join() else ["a client process failed, or a request did not end"]
    time.sleep(2)
    left = {name: read_metric(port, name) for name in _IDLE_METRICS}
    faults += [
        f"{name} is {number:.0f} at the end, limit 0" for name, number in left.items() if number
    ]
    if (tasks := read_metric(port, "tasks")) > idle + _MAX_EXTRA_TASKS:
        faults.append(f"tasks is {tasks:.0f} at the end, limit {idle + _MAX_EXTRA_TASKS:.0f}")
    return samples, clients.records, faults


def _format_sample(s: Sample) -> str:
    codes = " ".join(f"{code}:{count}" for code, count in sorted(s.codes.items()))
    return (
        f"{s.at:6.0f} {s.requests:6.1f} {s.p50_ms:7.1f} {s.p99_ms:7.1f} {s.first_p50_ms:10.1f} "
        f"{s.first_p99_ms:10.1f} {s.rss_mb:7.1f} {s.descriptors:4} {s.threads:8} {s.tasks:6}  "
        f"{codes}"
    )


def _unexpected_statuses(records: list[dict[str, Any]]) -> list[str]:
    """Return the ten most frequent unexpected statuses, with their counts."""
    unexpected = Counter(
        (record["kind"], record["code"], record["detail"])
        for record in records
        if record["code"] not in KINDS[record["kind"]].codes | ALWAYS_VALID
    )
    return [f"{count} × {' '.join(status)}" for status, count in unexpected.most_common(10)]


def _tabulate_by_kind(records: list[dict[str, Any]]) -> Table:
    table = Table("kind", "requests", "p50 ms", "p99 ms", "first p50", "first p99", "codes")
    for kind in KINDS:
        own = [record for record in records if record["kind"] == kind]
        times = [record["seconds"] * 1000 for record in own]
        firsts = [record["first_token"] * 1000 for record in own if record["first_token"]]
        figures = [
            percentile(values, fraction) for values in (times, firsts) for fraction in (0.5, 0.99)
        ]
        codes = Counter(record["code"] for record in own)
        shown = " ".join(f"{code}:{count}" for code, count in sorted(codes.items()))
        table.add_row(kind, str(len(own)), *(f"{figure:.1f}" for figure in figures), shown)
    return table


def _write_report(
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
    write_plots(out / "soak.html", samples, {**settings, "requests": len(records)})


if __name__ == "__main__":
    typer.run(main)
