"""Server process seen from outside: memory, descriptors, threads, log, metrics."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_START_SECONDS = 120.0
_POLL_SECONDS = 0.02
SLOTS = 16


@dataclass(frozen=True)
class Footprint:
    """Resident bytes, threads and open descriptors of a process."""

    rss: int
    threads: int
    descriptors: int


@dataclass(frozen=True)
class ServerProcess:
    """Process of `gpt2flow serve` on a free port of 127.0.0.1."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def footprint(self) -> Footprint:
        """Return the footprint of the process, read from /proc."""
        folder = Path(f"/proc/{self.process.pid}")
        fields = dict(
            line.split(":", 1) for line in (folder / "status").read_text().splitlines() if line
        )
        return Footprint(
            rss=int(fields["VmRSS"].split()[0]) * 1024,
            threads=int(fields["Threads"]),
            descriptors=sum(1 for _ in (folder / "fd").iterdir()),
        )

    def metric(self, name: str) -> float:
        """Return a metric from the metrics endpoint."""
        port = next(
            ready["metrics_port"]
            for line in self.log.read_text().splitlines()
            if (ready := json.loads(line))["event"] == "ready"
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        found = re.search(rf"^gpt2flow_{name}(?:{{.*}})? (.+)$", text, re.MULTILINE)
        assert found is not None, name
        return float(found[1])

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def server_process(
    bundle: Path, folder: Path, *options: str, stderr: IO[bytes] | int | None = None
) -> Iterator[ServerProcess]:
    """Serve a bundle; log to `folder` unless `stderr` is given."""
    ready, log = folder / "port", folder / "server.log"
    ready.unlink(missing_ok=True)
    arguments = ["--model", f"m={bundle}", "--address", "127.0.0.1:0", "--ready-file", str(ready)]
    command = [sys.executable, "-m", "gpt2flow.cli", "serve", *arguments]
    metrics = ["--metrics-address", "127.0.0.1:0"]
    limits = ["--max-sequences", str(SLOTS), "--max-queued", "500", "--threads", "1"]
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*command, *metrics, *limits, *options], stderr=file if stderr is None else stderr
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not ready.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(_POLL_SECONDS)
        yield ServerProcess(process, int(ready.read_text()), log)
    finally:
        process.kill()
        process.wait()
