"""Server process seen from outside: memory, descriptors, threads, log, metrics."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.support.project import PROJECT
from tests.support.waiting import SECONDS, eventually

SLOTS = 16
SMALL = ("--max-sequences", str(SLOTS), "--max-queued", "500", "--threads", "1")


@dataclass(frozen=True)
class Footprint:
    """Resident bytes, threads and open descriptors of a process."""

    rss: int
    threads: int
    descriptors: int


@dataclass(frozen=True)
class ServerProcess:
    """Process of `gpt2flow serve` on a free port of 127.0.0.1.

    Attributes:
        process: The process.
        port: Port that it serves on.
        log: File of its log.
        hurry_file: File whose existence ends the slowness of its decode steps.
    """

    process: "subprocess.Popen[str]"
    port: int
    log: Path
    hurry_file: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

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

    def baseline(self) -> Footprint:
        """Return the footprint once the server has started its first grammar worker."""
        eventually(lambda: _has_child(self.process.pid))
        return self.footprint()

    def cpu_seconds(self) -> float:
        """Return user and system time of the process, in seconds."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Return the log's lines with these events, by default all."""
        # The last line may be incomplete.
        lines = self.log.read_text().splitlines(keepends=True)
        events: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in events if not names or event["event"] in names]

    def metric(self, name: str) -> float:
        """Return a metric from the metrics endpoint."""
        [ready] = self.events("ready")
        url = f"http://127.0.0.1:{ready['metrics_port']}/metrics"
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            text = answer.read().decode()
        found = re.search(rf"^gpt2flow_{name}(?:{{.*}})? (.+)$", text, re.MULTILINE)
        assert found is not None, name
        return float(found[1])

    def hurry(self) -> None:
        """Run decode steps at full speed from now on."""
        self.hurry_file.touch()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Wait until the process has ended without an error."""
        assert self.process.wait(SECONDS) == 0

    def stop(self) -> str:
        """Send SIGTERM, wait until the process has ended, and return its log."""
        self.terminate()
        self.wait()
        return self.log.read_text()


def _has_child(pid: int) -> bool:
    """Return whether a process has a child process."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # Other processes may end at any time.
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                return True
    return False


@contextmanager
def server_process(
    bundle: Path,
    folder: Path,
    *options: str,
    name: str = "m",
    limits: Sequence[str] = SMALL,
    stderr: IO[Any] | int | None = None,
    step_seconds: float = 0.0,
    program: Sequence[str] = ("gpt2flow.cli",),
) -> Iterator[ServerProcess]:
    """Run `gpt2flow serve` until the block ends.

    Args:
        bundle: Directory of the bundle.
        folder: Directory to write the log and the ready file to.
        options: Further options of `gpt2flow serve`.
        name: Name of the model.
        limits: Options that make the server small.
        stderr: Destination of the log; None is a file in `folder`.
        step_seconds: Time that each decode step takes at least, until `hurry` is called.
        program: Module that runs `gpt2flow`, and its own arguments.

    Yields:
        The process, once it is ready.
    """
    ready, log, hurry_file = folder / "port", folder / "server.log", folder / "hurry"
    ready.unlink(missing_ok=True)
    if step_seconds:
        program = ("tests.support.slow_server", str(step_seconds), str(hurry_file))
    command = [sys.executable, "-m", *program, "serve", "--model", f"{name}={bundle}"]
    addresses = ["--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"]

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        return ready.exists()

    with (
        log.open("ab") as file,
        subprocess.Popen(
            [*command, *addresses, "--ready-file", str(ready), *limits, *options],
            cwd=PROJECT,
            stderr=file if stderr is None else stderr,
            text=True,
        ) as process,
    ):
        try:
            eventually(is_ready)
            yield ServerProcess(process, int(ready.read_text()), log, hurry_file)
        finally:
            process.kill()
