"""Keepers of PostgreSQL and the model server of a chaos run."""

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.chaos.processes.keeper import MAX_DOWN_SECONDS, POLL_SECONDS, Keeper, Obituaries
from tests.chaos.processes.kill_points import Victim
from tests.chaos.processes.roles import DEAD_SECONDS
from tests.support.postgresql import PostgresqlServer, UnavailableError
from tests.support.project import SHIPPED_BUNDLE
from tests.support.server_process import ServerProcess, server_process
from tests.support.waiting import eventually

# After such a pause, all agents look dead to each other; and the share of such pauses.
_LONG_SECONDS, _LONG_SHARE = DEAD_SECONDS + 1.0, 0.2
# How often the processes of PostgreSQL's connections are killed with it.
_BACKENDS = 0.5
# Least duration of a decode step, so that a kill hits calls in the middle.
_STEP_SECONDS = 0.01


class ServiceKeeper(Keeper):
    """Keeper of a server whose process id is in a file.

    The agents can kill it too.

    Args:
        victim: Role of the process.
        obituaries: Where its deaths are recorded.
        rng: Source of the pauses before it is started again.

    Attributes:
        pid_file: File of the process id, while the server runs.
    """

    def __init__(self, victim: Victim, obituaries: Obituaries, rng: random.Random) -> None:
        super().__init__(victim, obituaries, rng)
        self.pid_file = obituaries.folder / f"{victim}.pid"

    def wait_until_ready(self) -> None:
        """Wait for the first start."""
        eventually(lambda: self.pid_file.exists() or not self._thread.is_alive())
        assert self.pid_file.exists(), f"{self.victim} did not start"

    def _watch(self, process: "subprocess.Popen[Any]") -> bool:
        """Wait until a server has ended, or has to.

        Returns:
            Whether it ended before it had to.
        """
        self.pid_file.write_text(str(process.pid), encoding="utf-8")
        try:
            while process.poll() is None:
                if self._stopping.wait(POLL_SECONDS):
                    return False
        finally:
            self.pid_file.unlink()
        self._obituaries.record(self.victim, process.pid, process.returncode)
        return True


class PostgresqlKeeper(ServiceKeeper):
    """Keeper of the database server, which has started already.

    Args:
        obituaries: Where its deaths are recorded.
        rng: Source of the pauses before it is started again.
        server: The server.
    """

    def __init__(
        self, obituaries: Obituaries, rng: random.Random, server: PostgresqlServer
    ) -> None:
        super().__init__(Victim.POSTGRESQL, obituaries, rng)
        self._server = server

    def kill(self) -> None:
        """Kill the server, and every second time its backends."""
        process = self._server._process
        if process is None or process.poll() is not None:
            return
        others = self._backends() if self._rng.random() < _BACKENDS else []
        process.kill()
        for pid in others:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def _backends(self) -> list[int]:
        found = []
        for cwd in Path("/proc").glob("[0-9]*/cwd"):
            with suppress(OSError):  # Other processes may end at any time.
                if cwd.readlink() == self._server.folder / "data":
                    found.append(int(cwd.parent.name))
        return found

    def _keep(self) -> None:
        # The checks of the run need it, so it is not left while it is down.
        while self._live():
            is_long = self._rng.random() < _LONG_SHARE
            time.sleep(_LONG_SECONDS if is_long else self._rng.uniform(0.0, MAX_DOWN_SECONDS))

    def _live(self) -> bool:
        assert self._server._process is not None
        if self._server._process.poll() is not None:
            # It may be killed before it is ready.
            with suppress(UnavailableError):
                self._server.start()
        if not self._watch(self._server._process):
            return False
        # Waits for the processes of its connections.
        self._server.stop(signal.SIGKILL)
        return True


class ModelServerKeeper(ServiceKeeper):
    """Keeper of a model server on the shipped bundle.

    Its decode steps are slow.

    Args:
        obituaries: Where its deaths are recorded.
        rng: Source of the pauses before it is started again.
        port: Port that it always has.
        down_seconds: Time before it is started again.
    """

    def __init__(
        self, obituaries: Obituaries, rng: random.Random, port: int, down_seconds: float
    ) -> None:
        super().__init__(Victim.SERVER, obituaries, rng)
        self.port = port
        self._folder = obituaries.folder
        self._down_seconds = down_seconds
        self._server: ServerProcess | None = None

    def kill(self) -> None:
        if self._server is not None:
            self._server.process.kill()

    def _live(self) -> bool:
        options = ("--address", f"127.0.0.1:{self.port}")
        with server_process(
            SHIPPED_BUNDLE, self._folder, *options, name="shop", step_seconds=_STEP_SECONDS
        ) as self._server:
            if not self._watch(self._server.process):
                return False
        return not self._stopping.wait(self._down_seconds)
