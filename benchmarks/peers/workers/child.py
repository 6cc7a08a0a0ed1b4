"""Server process that a worker starts and measures from outside."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

_START_SECONDS = 120.0
_STOP_SECONDS = 10.0


class Child:
    """Server process that runs until it is stopped or its worker ends.

    Args:
        command: Command line; its output goes to the worker's standard error.
        ready: Function that returns True once the server is ready.

    Raises:
        RuntimeError: The server exited, or was not ready within two minutes.
    """

    def __init__(self, command: list[str], ready: Callable[[], bool]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        deadline = time.monotonic() + _START_SECONDS
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                name = Path(command[0]).name
                raise RuntimeError(f"{name} exited or was not ready in {_START_SECONDS:g} s")
            time.sleep(0.01)

    def __enter__(self) -> Self:
        return self

    def stop(self) -> None:
        """Terminate the process, and kill it after ten seconds."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def resident_bytes(self) -> int:
        """Return the resident memory of the process, in bytes."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
