"""Programs of the project as child processes, and their ready files."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gpt2flow.cli.outcome import CommandError, Exit
from gpt2flow.files.atomic import write_atomically

_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 10.0
_POLL_INTERVAL = 0.02


def announce(ready_file: Path | None, port: int) -> None:
    """Write the port of a ready server to its ready file.

    Args:
        ready_file: File to write; None writes none.
        port: Port that was bound.

    Raises:
        CommandError: The file cannot be written.
    """
    if ready_file is None:
        return
    try:
        write_atomically(ready_file, f"{port}\n")
    except OSError as error:
        message = f"--ready-file {ready_file}: {error.strerror}"
        raise CommandError(message, Exit.BAD_INPUT) from error


@contextmanager
def server(model: Path, directory: Path, *options: str) -> Iterator[str]:
    """Serve a bundle on a free local port until the block ends.

    Args:
        model: Directory of the bundle.
        directory: Directory to write the server's log and ready file to.
        options: Further options of `gpt2flow serve`.

    Yields:
        The address, as `127.0.0.1:port`.

    Raises:
        CommandError: The server ended or was not ready within 60 seconds.
    """
    with _serving(["serve", "--model", str(model), *options], directory, "server") as address:
        yield address


@contextmanager
def gateway(server_address: str, directory: Path) -> Iterator[str]:
    """Run the HTTP gateway of a server until the block ends.

    Args:
        server_address: Address of the server.
        directory: Directory to write its log and ready file to.

    Yields:
        Its URL.

    Raises:
        CommandError: The gateway ended or was not ready within 60 seconds.
    """
    with _serving(["gateway", "--server", server_address], directory, "gateway") as address:
        yield f"http://{address}"


@contextmanager
def console(database: Path, tokens: Path, directory: Path) -> Iterator[str]:
    """Run the web console of a shop until the block ends.

    Args:
        database: SQLite file of the shop.
        tokens: File of tokens.
        directory: Directory to write its log and ready file to.

    Yields:
        Its address, as `127.0.0.1:port`.

    Raises:
        CommandError: The console ended or was not ready within 60 seconds.
    """
    arguments = ["console", "--tokens", str(tokens), "--database", str(database)]
    with _serving(arguments, directory, "console") as address:
        yield address


@contextmanager
def storefront(
    database: Path, tokens: Path, directory: Path, options: Sequence[str] = ()
) -> Iterator[str]:
    """Run the storefront of a shop until the block ends.

    Args:
        database: SQLite file of the shop.
        tokens: File of tokens.
        directory: Directory to write its log and ready file to.
        options: Further options of `gpt2flow storefront`.

    Yields:
        Its URL.

    Raises:
        CommandError: The storefront ended or was not ready within 60 seconds.
    """
    arguments = ["storefront", "--tokens", str(tokens), "--database", str(database), *options]
    with _serving(arguments, directory, "storefront") as address:
        yield f"http://{address}"


@contextmanager
def payment_service(directory: Path) -> Iterator[str]:
    """Run a payment service on a free port until the block ends.

    Args:
        directory: Directory to write its ledger, log and ready file to.

    Yields:
        Its URL.

    Raises:
        CommandError: The service ended or was not ready within 60 seconds.
    """
    arguments = ["agent", "payment-service", "--data", str(directory / "payments.sqlite")]
    with _serving(arguments, directory, "payment service") as address:
        yield f"http://{address}"


@contextmanager
def _serving(arguments: list[str], directory: Path, name: str) -> Iterator[str]:
    """Run a server until the block ends, and yield its address."""
    ready, log = directory / f"{name}.port", directory / f"{name}.log"
    local = ["--address", "127.0.0.1:0", "--ready-file", str(ready)]
    with (
        log.open("w") as output,
        _running([*arguments, *local], stderr=output) as process,
    ):
        deadline = time.monotonic() + _START_TIMEOUT
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise CommandError(f"the {name} did not start: {_last_line(log)}", Exit.FAILURE)
            time.sleep(_POLL_INTERVAL)
        yield f"127.0.0.1:{ready.read_text().strip()}"


class AgentProcess:
    """Running `gpt2flow agent run -`, with JSON lines on its pipes."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self._process = process
        self._log = log

    def handle(self, message: dict[str, str]) -> dict[str, Any]:
        """Send one message and return the report of its turn.

        Raises:
            CommandError: The process ended, or the message failed.
        """
        stdin, stdout = _pipes(self._process)
        stdin.write(json.dumps(message, ensure_ascii=False) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise CommandError(f"the agent ended: {_last_line(self._log)}", Exit.FAILURE)
        result: dict[str, Any] = json.loads(line)
        if "error" in result:
            raise CommandError(f"the agent failed: {result['error']}", Exit.FAILURE)
        report: dict[str, Any] = result["report"]
        return report


@contextmanager
def agent(
    address: str, database: Path, directory: Path, options: Sequence[str] = ()
) -> Iterator[AgentProcess]:
    """Run an agent process until the block ends.

    Args:
        address: `host:port` of the model's server.
        database: SQLite file of the shop.
        directory: Directory to write the agent's log to.
        options: Further options of `gpt2flow agent run`.
    """
    log = directory / f"{database.stem}.log"
    arguments = ["agent", "run", "-", "--address", address, "--database", str(database), *options]
    with (
        log.open("w") as output,
        _running(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output
        ) as process,
    ):
        yield AgentProcess(process, log)
        _pipes(process)[0].close()
        process.wait(_STOP_TIMEOUT)


@contextmanager
def _running(arguments: list[str], **streams: Any) -> Iterator["subprocess.Popen[str]"]:
    """Run `gpt2flow` with arguments until the block ends."""
    command = [sys.executable, "-m", "gpt2flow.cli", *arguments]
    process = subprocess.Popen(command, text=True, encoding="utf-8", **streams)  # noqa: S603 - our own command
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _pipes(process: "subprocess.Popen[str]") -> tuple[IO[str], IO[str]]:
    if process.stdin is None or process.stdout is None:
        raise TypeError("the process was started without pipes")
    return process.stdin, process.stdout


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "its log is empty"
