"""Processes of a chaos run, which are started again whenever they end."""

import multiprocessing
import os
import random
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from tests.chaos.processes.kill_points import Victim
from tests.chaos.processes.roles import UNAVAILABLE, RoleSetup

FORKING: Final = multiprocessing.get_context("forkserver")
"""Context of the processes of a run.

They start with the imports of their roles, which take seconds.
"""
FORKING.set_forkserver_preload(
    [
        "tests.chaos.processes.roles",
        "tests.chaos.processes.commands",
        "gpt2flow.agent.payments.http",
    ]
)
RANDOM: Final = "random"
"""Point of a kill at a random time."""

# Longest pause before a process is started again.
MAX_DOWN_SECONDS: Final = 0.5
POLL_SECONDS: Final = 0.02
# Longest time for a process to end when it is told to.
_STOP_SECONDS = 60.0


class ProcessDiedError(Exception):
    """Agent that ended before it answered."""


@dataclass(frozen=True)
class Death:
    """End of a process by SIGKILL.

    Attributes:
        victim: Role of the process.
        point: Point at which it was killed; `RANDOM` is any.
        at: Time, by the monotonic clock.
    """

    victim: Victim
    point: str
    at: float


@dataclass
class Obituaries:
    """Deaths of a run, and exits that are defects.

    Attributes:
        folder: Folder of the run.
        deaths: Deaths so far.
        restarts: Number of starts that followed a death or a failed start.
        defects: Processes that ended by themselves.
    """

    folder: Path
    deaths: list[Death] = field(default_factory=list)
    restarts: int = 0
    defects: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def record(self, victim: Victim, pid: int | None, exit_code: int | None) -> None:
        """Record the end of a process that should have gone on."""
        with self._lock:
            self.restarts += 1
            if exit_code == -signal.SIGKILL:
                self.deaths.append(Death(victim, self._point(pid), time.monotonic()))
            elif exit_code != UNAVAILABLE:
                self.defects.append(f"{victim} {pid} ended by itself with {exit_code}")

    def record_defect(self, defect: str) -> None:
        """Record what must not happen."""
        with self._lock:
            self.defects.append(defect)

    def _point(self, pid: int | None) -> str:
        """Return the point at which a process was killed."""
        for path in (self.folder / "claims").iterdir():
            if path.read_text(encoding="utf-8") == str(pid):
                return path.name.partition("@")[2].replace("|", "/")
        return RANDOM


class Keeper(ABC):
    """Keeper of one process.

    Args:
        victim: Role of the process.
        obituaries: Where its deaths are recorded.
        rng: Source of the pauses before it is started again.
    """

    def __init__(self, victim: Victim, obituaries: Obituaries, rng: random.Random) -> None:
        self.victim = victim
        self._obituaries = obituaries
        self._rng = rng
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"keeper of {victim}", daemon=True)

    def start(self) -> None:
        """Start the process."""
        self._thread.start()

    def stop(self) -> None:
        """End the process as its operator would."""
        self._stopping.set()
        self._thread.join()

    @abstractmethod
    def kill(self) -> None:
        """Send SIGKILL, if the process runs."""

    @abstractmethod
    def _live(self) -> bool:
        """Start the process, and wait until it ends or has to.

        Returns:
            Whether it ended before it had to.
        """

    def _keep(self) -> None:
        while not self._stopping.is_set():
            if not self._live():
                return
            self._stopping.wait(self._rng.uniform(0.0, MAX_DOWN_SECONDS))


class ForkedKeeper(Keeper):
    """Keeper of a forked process.

    Attributes:
        is_ready: Whether the process takes work.
    """

    def __init__(
        self,
        victim: Victim,
        obituaries: Obituaries,
        rng: random.Random,
        run: Callable[[Connection, RoleSetup], None],
        setup: RoleSetup,
    ) -> None:
        super().__init__(victim, obituaries, rng)
        self._run = run
        self._setup = setup
        self._process: Any = None
        self._connection: Connection | None = None
        self._waiting: dict[int, Future[Any]] = {}
        self._numbers = 0
        self._lock = threading.Lock()
        self.is_ready = False

    def kill(self) -> None:
        process = self._process
        if process is not None:
            process.kill()

    def dump(self) -> None:
        """Let the process write its stacks to its log."""
        if self._process is not None and self._process.is_alive():
            os.kill(self._process.pid, signal.SIGUSR1)

    def ask(self, session: str, message_id: str, text: str) -> "Future[Any]":
        """Send a message to an agent.

        Returns:
            Future of the report, the error, and whether the error is a clear one; it raises
            `ProcessDiedError` if the agent ends before that.
        """
        future: Future[Any] = Future()
        with self._lock:
            if not self.is_ready or self._connection is None:
                future.set_exception(ProcessDiedError())
                return future
            self._numbers += 1
            self._waiting[self._numbers] = future
            with suppress(OSError):
                self._connection.send((self._numbers, session, message_id, text))
        return future

    def _live(self) -> bool:
        ours, theirs = FORKING.Pipe()
        process = FORKING.Process(target=self._run, args=(theirs, self._setup), daemon=True)
        process.start()
        theirs.close()
        self._connection, self._process = ours, process
        reader = threading.Thread(target=self._read, args=(ours,), daemon=True)
        reader.start()
        while process.is_alive() and not self._stopping.is_set():
            process.join(POLL_SECONDS)
        if process.is_alive():
            with suppress(OSError):
                ours.send(None)
            self._wait_for_end()
        reader.join()
        if not self._stopping.is_set() or process.exitcode != 0:
            self._obituaries.record(self.victim, process.pid, process.exitcode)
        return not self._stopping.is_set()

    def _wait_for_end(self) -> None:
        """Wait until the process has ended.

        One that hangs leaves its stacks in its log.
        """
        self._process.join(_STOP_SECONDS)
        if self._process.is_alive():
            self.dump()
            time.sleep(1.0)
            self._obituaries.defects.append(f"{self.victim} did not end within {_STOP_SECONDS} s")
            self._process.kill()
            self._process.join()

    def _read(self, connection: Connection) -> None:
        """Take the answers of one process until it ends."""
        with suppress(EOFError, OSError):
            while True:
                message = connection.recv()
                if message == ("ready",):
                    self.is_ready = True
                    continue
                number, *answer = message
                self._waiting.pop(number).set_result(answer)
        with self._lock:
            self.is_ready = False
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_exception(ProcessDiedError())
