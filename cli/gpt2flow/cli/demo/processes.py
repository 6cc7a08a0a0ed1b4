"""Processes of our own: a server on a free port, and the agent in a pipe."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gpt2flow.cli.outcome import CommandError, Exit

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02


@contextmanager
def server(model: Path, folder: Path, *options: str) -> Iterator[str]:
    """Serve a bundle on a free port of 127.0.0.1, with more options, and yields the address."""
    ready, log = folder / "server.port", folder / "server.log"
    arguments = ["serve", "--model", str(model), "--address", "127.0.0.1:0", *options]
    with (
        log.open("w") as output,
        _running([*arguments, "--ready-file", str(ready)], stderr=output) as process,
    ):
        deadline = time.monotonic() + _START_SECONDS
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise CommandError(f"the server did not start: {_last_line(log)}", Exit.FAILURE)
            time.sleep(_POLL_SECONDS)
        yield f"127.0.0.1:{ready.read_text().strip()}"


class AgentProcess:
    """`gpt2flow agent run -`: a JSON line in for each message, a JSON line out."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self._process = process
        self._log = log

    def tell(self, message: dict[str, str]) -> dict[str, Any]:
        """Send one message and returns the report of the turn."""
        to_agent, from_agent = _pipes(self._process)
        to_agent.write(json.dumps(message, ensure_ascii=False) + "\n")
        to_agent.flush()
        line = from_agent.readline()
        if not line:
            raise CommandError(f"the agent ended: {_last_line(self._log)}", Exit.FAILURE)
        result: dict[str, Any] = json.loads(line)
        if "error" in result:
            raise CommandError(f"the agent: {result['error']}", Exit.FAILURE)
        report: dict[str, Any] = result["report"]
        return report


@contextmanager
def agent(address: str, database: Path, folder: Path) -> Iterator[AgentProcess]:
    """Start an agent process for one database."""
    log = folder / f"{database.stem}.log"
    arguments = ["agent", "run", "-", "--address", address, "--database", str(database)]
    with (
        log.open("w") as output,
        _running(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output
        ) as process,
    ):
        yield AgentProcess(process, log)
        _pipes(process)[0].close()
        process.wait(_STOP_SECONDS)


@contextmanager
def _running(arguments: list[str], **streams: Any) -> Iterator["subprocess.Popen[str]"]:
    """Run `gpt2flow` with arguments; ends it at the latest when the block does."""
    command = [sys.executable, "-m", "gpt2flow.cli", *arguments]
    process = subprocess.Popen(command, text=True, encoding="utf-8", **streams)  # noqa: S603 - our own command
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _pipes(process: "subprocess.Popen[str]") -> tuple[IO[str], IO[str]]:
    if process.stdin is None or process.stdout is None:
        raise TypeError("the process was started without pipes")
    return process.stdin, process.stdout


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
