"""Worker processes, stopped except while they are measured."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_STOP_SECONDS = 5.0


class WorkerError(Exception):
    """Failure or exit of a worker, with the reason."""


class WorkerProcess:
    """Worker and its child processes, in a session of their own.

    Between measurements all of them are stopped, so that one engine's spinning threads never slow
    another engine down.

    Args:
        command: Command line of the worker, which answers requests on its standard streams.
        log: File for its standard error.
    """

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log
        folders = [str(Path(__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(":")]
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": ":".join(filter(None, folders))},
                start_new_session=True,
            )
        self._lines = b""

    def call(self, do: str, *, seconds: float, **arguments: Any) -> Any:
        """Call a method of the worker and return its result.

        Args:
            do: Name of the method.
            seconds: Timeout.
            arguments: Keyword arguments of the method.

        Raises:
            WorkerError: The worker failed, exited, or took more than `seconds`. One that took
                longer is terminated, since its late answer would be that of the next call.
        """
        if self._process.stdin is None:
            raise TypeError("the process was started without pipes")
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._describe_exit()) from None
        answer = json.loads(self._read_line(time.monotonic() + seconds))
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer["result"]

    @property
    def ended(self) -> bool:
        """True once the worker has exited."""
        return self._process.poll() is not None

    def pause(self) -> None:
        """Stop the worker until it is resumed."""
        self._send_signal(signal.SIGSTOP)

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """Let the worker run within the block."""
        self._send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.pause()

    def close(self) -> None:
        """Terminate the worker and its child processes."""
        self._send_signal(signal.SIGTERM)
        self._send_signal(signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self._send_signal(signal.SIGKILL)
        self._process.wait()

    def _read_line(self, deadline: float) -> bytes:
        if self._process.stdout is None:
            raise TypeError("the process was started without pipes")
        while b"\n" not in self._lines:
            left = max(deadline - time.monotonic(), 0)
            if not select.select([self._process.stdout], [], [], left)[0]:
                self.close()
                raise WorkerError("the worker timed out")
            part = os.read(self._process.stdout.fileno(), 1 << 20)
            if not part:
                raise WorkerError(self._describe_exit())
            self._lines += part
        line, _, self._lines = self._lines.partition(b"\n")
        return line

    def _describe_exit(self) -> str:
        """Return the exit code and the last line of the log."""
        code = self._process.wait()
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"the worker exited with {code}: {lines[-1] if lines else 'no output'}"

    def _send_signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return
