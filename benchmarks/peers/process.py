"""A worker's process, as the one who measures sees it: it runs only while it is its turn."""

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
    """A worker said that it could not, or ended; says why."""


class WorkerProcess:
    """A worker and all that it starts, in a session of their own.

    Between turns all of it is stopped, so that the spinning threads of one engine never cost
    another one its time.

    Args:
        command: What to run; the worker's lines are its standard streams.
        log: Where its standard error goes.
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

    def ask(self, do: str, *, seconds: float, **arguments: Any) -> Any:
        """Has the worker do something and returns what came of it.

        Raises:
            WorkerError: It failed, ended, or took more than `seconds`.
        """
        if self._process.stdin is None:
            raise TypeError("the process was started without pipes")
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._end()) from None
        answer = json.loads(self._line(time.monotonic() + seconds))
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer["result"]

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.poll() is not None

    def pause(self) -> None:
        """Stop it until its turn."""
        self._signal(signal.SIGSTOP)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let it run within the block."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.pause()

    def close(self) -> None:
        """End it and what it started."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _line(self, deadline: float) -> bytes:
        if self._process.stdout is None:
            raise TypeError("the process was started without pipes")
        while b"\n" not in self._lines:
            left = max(deadline - time.monotonic(), 0)
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise WorkerError("it took too long")
            part = os.read(self._process.stdout.fileno(), 1 << 20)
            if not part:
                raise WorkerError(self._end())
            self._lines += part
        line, _, self._lines = self._lines.partition(b"\n")
        return line

    def _end(self) -> str:
        """Say how it ended."""
        code = self._process.wait()
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"it ended with {code}: {lines[-1] if lines else 'it said nothing'}"

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return
