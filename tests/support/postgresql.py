"""Private PostgreSQL server of a test run, and its databases."""

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, LiteralString, NoReturn

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from tests.support.waiting import eventually

from gpt2flow.agent.shop import Base, Database, database_url

# Parameters of fixtures that give a test each of the two databases.
DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.process)]

_ROLE = "gpt2flow"
# Debian keeps the server's programs out of PATH, a folder a version.
_DEBIAN = Path("/usr/lib/postgresql")
# The server refuses to run as root. Debian's package makes the first user, every system the second.
_USERS = ("postgres", "nobody")
_SETTINGS = """
listen_addresses = ''
unix_socket_directories = '{folder}'
max_connections = 300
shared_buffers = 32MB
fsync = off
full_page_writes = off
synchronous_commit = off
# Not UTC, so that a time that is not converted differs.
timezone = 'Asia/Shanghai'
"""
# Ends the server once the pipe is closed, which the end of a killed run does too.
_WATCH = """
read -r _
lock=$0/data/postmaster.pid
pid=$(head -n 1 "$lock") && kill -QUIT "$pid" &&
  while [ -e "$lock" ] && kill -0 "$pid"; do sleep 0.1; done
rm -rf "$0"
"""


class UnavailableError(Exception):
    """Reason why this machine has no PostgreSQL server for the tests."""


class PostgresqlServer:
    """PostgreSQL server on a socket of its own; `postgresql_server` makes one.

    Args:
        programs: Folder of the server's programs.
        folder: Folder for data, log and socket.
        user: User to run the server as; None is the user of this process.
    """

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self.programs = programs
        self.folder = folder
        self.user = user
        self._log = folder / "log"
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """Create the data directory.

        Raises:
            UnavailableError: The program fails.
        """
        command = [str(self.programs / "initdb"), "--pgdata", str(self._data), "--no-sync"]
        auth = ("--auth", "trust", "--username", _ROLE)
        with self._log.open("ab") as log:
            done = subprocess.run(
                self.as_user([*command, *auth, "--encoding", "UTF8", "--locale", "C"]),
                stdout=log,
                stderr=log,
                check=False,
                **self.options(),
            )
        if done.returncode:
            raise UnavailableError(f"PostgreSQL makes no data directory: {self._last_lines()}")
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(_SETTINGS.format(folder=self.folder))

    def start(self) -> None:
        """Start the server, and wait until it accepts connections.

        Raises:
            UnavailableError: The server does not start.
        """
        command = self.as_user([str(self.programs / "postgres"), "-D", str(self._data)])
        with self._log.open("ab") as log:
            self._process = process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, **self.options()
            )

        def is_ready() -> bool:
            if process.poll() is not None:
                raise UnavailableError(f"PostgreSQL does not start: {self._last_lines()}")
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.url("postgres")).close()
                return True
            return False

        eventually(is_ready)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End the server, and wait until it has ended.

        Args:
            number: Signal to send. SIGINT ends the connections and then the server, as an
                administrator would; SIGKILL leaves what a crash leaves.
        """
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait()
        # Those of a killed server end a little later, and keep a new one from starting.
        eventually(lambda: not _has_processes(self._data))

    def close(self) -> None:
        """End the server if it runs, and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def options(self) -> dict[str, Any]:
        """Return how `subprocess` runs a program of PostgreSQL here."""
        # A developer's PGHOST or PGDATA is another server's.
        names = [name for name in os.environ if not name.startswith("PG")]
        environment = {name: os.environ[name] for name in names} | {"LC_ALL": "C"}
        return {"cwd": self.folder, "env": environment}

    def as_user(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs another one as the server's user.

        With its own argument for a user, `subprocess` would fork as processes with threads of gRPC
        must not: the child may die before it starts the program.
        """
        if self.user is None:
            return list(command)
        group = _group(self.user)
        return ["setpriv", f"--reuid={self.user}", f"--regid={group}", "--clear-groups", *command]

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _last_lines(self) -> str:
        return "; ".join(self._log.read_text(encoding="utf-8").splitlines()[-3:])

    def url(self, database: str, role: str = _ROLE) -> str:
        """Return the URL of a database."""
        return f"postgresql://{role}@/{database}?host={self.folder}"

    def execute(self, statement: LiteralString, *names: str) -> None:
        """Execute a statement as the administrator.

        Args:
            statement: Statement of SQL, with `{}` for each name.
            names: Names, which are quoted.
        """
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(SQL(statement).format(*map(Identifier, names)))

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """Make a database for as long as the block runs.

        Args:
            template: Database to copy, which nobody may be connected to.

        Yields:
            Its URL.
        """
        name = f"test_{next(self._numbers)}"
        self.execute("CREATE DATABASE {} TEMPLATE {}", name, template)
        yield self.url(name)
        self.execute("DROP DATABASE {} WITH (FORCE)", name)

    @cached_property
    def shop(self) -> str:
        """Name of a database with a newly opened shop, to copy."""
        name = "new_shop"
        self.execute("CREATE DATABASE {}", name)
        Database.open(database_url(self.url(name))).close()
        return name


class ResettableShop:
    """Shop that is new again faster than a database is made.

    Args:
        database: Newly opened shop.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._tables = [table.name for table in Base.metadata.sorted_tables]
        with database.engine.begin() as connection:
            connection.exec_driver_sql("CREATE SCHEMA kept")
            for name in self._tables:
                connection.exec_driver_sql(f"CREATE TABLE kept.{name} AS TABLE {name}")

    def reset(self) -> Database:
        """Return the shop, with the rows of a new one."""
        with self.database.engine.begin() as connection:
            every = ", ".join(self._tables)
            connection.exec_driver_sql(f"TRUNCATE {every} RESTART IDENTITY")
            for name in self._tables:
                connection.exec_driver_sql(f"INSERT INTO {name} TABLE kept.{name}")
        return self.database


def find_programs(debian: Path = _DEBIAN, path: str | None = None) -> Path:
    """Return the folder of the server's programs, the newest version first.

    Args:
        debian: Folder of the versions that Debian has installed.
        path: Folders to search next, separated by colons; None is PATH.

    Raises:
        UnavailableError: PostgreSQL is not installed.
    """
    versions = [each for each in debian.glob("*/bin") if (each / "initdb").exists()]
    if versions:
        return max(versions, key=lambda each: [int(part) for part in each.parent.name.split(".")])
    found = shutil.which("initdb", path=path)
    if found is None:
        raise UnavailableError("no PostgreSQL server on this machine; see `make postgresql`")
    return Path(found).resolve().parent


def skip(reason: str) -> NoReturn:
    """Skip the test; with CI=true, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@contextmanager
def postgresql_server() -> Iterator[PostgresqlServer]:
    """Run a server of its own until the block ends.

    Raises:
        UnavailableError: There is no server, or it does not start.
    """
    programs = find_programs()
    # Not below the folders of pytest, which other users cannot enter.
    folder = Path(tempfile.mkdtemp(prefix="gpt2flow-postgresql-"))
    server = PostgresqlServer(programs, folder, _user())
    if server.user is not None:
        shutil.chown(folder, server.user, _group(server.user))
    with _watcher(server):
        try:
            server.create()
            server.start()
            yield server
        finally:
            server.close()


def _watcher(server: PostgresqlServer) -> "subprocess.Popen[bytes]":
    """Start a process that ends the server of a killed run."""
    return subprocess.Popen(
        server.as_user(["sh", "-c", _WATCH, str(server.folder)]),
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # Ctrl-C on a terminal is for this process alone.
        start_new_session=True,
        **server.options(),
    )


def _user(names: Sequence[str] = _USERS) -> str | None:
    """Return the user to run the server as; None is this one."""
    if os.geteuid() != 0:
        return None
    for name in names:
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise UnavailableError(f"root cannot run PostgreSQL, and none of the users {names} exists")


def _group(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


def _has_processes(data: Path) -> bool:
    """Return whether a process works in a data directory."""
    for cwd in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):  # Other processes may end at any time.
            if cwd.readlink() == data:
                return True
    return False
