"""Locks between processes that share a shop database."""

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from sqlalchemy import URL, Engine, create_engine, text

from gpt2flow.agent.errors import DatabaseError

if sys.platform != "win32":
    import fcntl

# Longest wait for another agent on the same SQLite file to end.
_WAIT_SECONDS = 10.0
_RETRY_SECONDS = 0.05


class SessionLocks(Protocol):
    """Locks that make the turns of one session exclude each other."""

    @contextmanager
    def hold(self, session: str) -> Iterator[None]:
        """Hold the lock of a session until the block ends."""

    def close(self) -> None:
        """Release what the locks hold."""


def open_session_locks(url: URL) -> SessionLocks:
    """Return the locks for the sessions in a database.

    Args:
        url: URL of the database. On PostgreSQL, several agents share it, with a lock for each
            session. An SQLite file is for one agent, which locks it whole.

    Raises:
        DatabaseError: Another agent uses the SQLite file.
    """
    if url.get_backend_name() == "sqlite":
        return _FileLock(Path(f"{url.database}-lock"), str(url.database))
    return _AdvisoryLocks(url)


class _FileLock:
    """Lock on an SQLite database, held from construction until `close`."""

    def __init__(self, path: Path, database: str) -> None:
        self._file: IO[str] | None = None
        if database.startswith("file:"):
            return
        self._file = path.open("a+", encoding="ascii")
        deadline = time.monotonic() + _WAIT_SECONDS
        while not _try_lock(self._file):
            if time.monotonic() > deadline:
                self._file.seek(0)
                holder = self._file.read().strip() or "unknown"
                self._file.close()
                raise DatabaseError(
                    f"database {database}: the agent with process id {holder} uses it, and an"
                    " SQLite file is for one agent at a time; several need PostgreSQL"
                )
            time.sleep(_RETRY_SECONDS)
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    @contextmanager
    def hold(self, session: str) -> Iterator[None]:
        """Do nothing: `Agent` orders the messages of a session."""
        del session
        yield

    def close(self) -> None:
        """Unlock the database."""
        if self._file is not None:
            self._file.close()


def _try_lock(file: IO[str]) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _AdvisoryLocks:
    """Advisory locks of PostgreSQL.

    They end with the connection of a killed process.
    """

    def __init__(self, url: URL) -> None:
        # Connections of their own: a turn holds one beside those of its transactions.
        self._engine: Engine = create_engine(
            url, isolation_level="AUTOCOMMIT", pool_size=4, max_overflow=-1, pool_pre_ping=True
        )

    @contextmanager
    def hold(self, session: str) -> Iterator[None]:
        digest = hashlib.sha256(session.encode("utf-8", "surrogatepass")).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        with self._engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": key})
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})

    def close(self) -> None:
        self._engine.dispose()
