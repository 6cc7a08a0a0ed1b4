"""Shop database on SQLite or PostgreSQL."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    String,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    SQLAlchemyError,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from gpt2flow.agent.errors import DatabaseError, InputError
from gpt2flow.agent.shop.catalogue import Catalogue, load_catalogue, seed
from gpt2flow.agent.shop.tables.base import Base

# Newest revision in `migrations`.
SCHEMA_REVISION = "v0005"
# Longest wait of a writer for the write lock.
_BUSY_MILLISECONDS = 10_000
_WAL_RETRY_SECONDS = 0.01
# States of PostgreSQL: serialization failure and deadlock.
_CONFLICTS = ("40001", "40P01")
# Conflicts after which a transaction is tried again.
_MAX_CONFLICTS = 3
# Key of the advisory lock; arbitrary, but unique within the PostgreSQL database.
_SCHEMA_LOCK = 7_213_501
_Result = TypeVar("_Result")


class SchemaRevision(Base):
    """Revision of the schema, in a single row that Alembic reads too."""

    __tablename__ = "alembic_version"

    version_num: Mapped[str] = mapped_column(String(32), primary_key=True)


def database_url(text_or_path: str) -> URL:
    """Parse a database URL or path.

    Args:
        text_or_path: SQLAlchemy URL (`sqlite:///…`, `postgresql://…`), or path of
            an SQLite file.

    Raises:
        InputError: The database is neither an SQLite file nor PostgreSQL.
    """
    if not text_or_path.strip():
        raise InputError("the database is empty; expected a URL or the path of an SQLite file")
    if "://" not in text_or_path:
        return URL.create("sqlite", database=text_or_path)
    try:
        url = make_url(text_or_path)
    except (ArgumentError, ValueError) as error:
        raise InputError(f"database {text_or_path!r} is not a URL: {error}") from error
    match url.get_backend_name():
        case "sqlite" if url.database not in (None, "", ":memory:"):
            return url
        case "sqlite":
            raise InputError("an SQLite database must be a file: turns must survive a crash")
        case "postgresql" | "postgres":
            return url.set(drivername="postgresql+psycopg")
        case other:
            raise InputError(f"database {other!r} is not supported; use sqlite or postgresql")


@contextmanager
def translate_errors(url: URL) -> Iterator[None]:
    """Translate SQLAlchemy errors into a one-line `DatabaseError`.

    Args:
        url: URL of the database, which the message names without its password.

    Raises:
        DatabaseError: A database operation inside the block failed.
    """
    try:
        yield
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise DatabaseError(f"database {display_name(url)}: {cause}") from error


def is_conflict(error: DBAPIError) -> bool:
    """Return whether a transaction failed because of another one.

    That is a unique value that the other wrote first, or a deadlock.
    """
    state = str(getattr(error.orig, "sqlstate", ""))
    return isinstance(error, IntegrityError) or state in _CONFLICTS


def retry_conflicts(transact: Callable[[], _Result]) -> _Result:
    """Run a transaction, and again if another one got in its way.

    Args:
        transact: Function that opens the transaction, and rolls back all of it on an error.

    Raises:
        DBAPIError: The database failed, or there was one conflict after another.
    """
    for _ in range(_MAX_CONFLICTS):
        try:
            return transact()
        except DBAPIError as error:
            if not is_conflict(error):
                raise
    return transact()


def display_name(url: URL) -> str:
    """Return the path of an SQLite file, or a URL without password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.set(drivername="postgresql").render_as_string(hide_password=True)


class Database:
    """Open shop database; `open` creates the schema first.

    Args:
        url: URL of the database.

    Raises:
        InputError: The driver of the database is not installed.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        try:
            self.engine = _create_engine(url)
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            raise InputError(f"database {display_name(url)}: {error}") from error

    @classmethod
    def open(cls, url: URL, catalogue: Catalogue | None = None) -> "Database":
        """Open a database; create and seed the schema if there is none.

        Args:
            url: URL of the database.
            catalogue: Products and couriers; those that the database lacks are added. None
                gives a new database those of the demo shop.

        Raises:
            DatabaseError: The database cannot be opened or written, its schema is older or newer
                than this program, or another program has tables in it.
            InputError: The driver of the database is not installed.
        """
        database = cls(url)
        with database.translate_errors(), database.engine.begin() as connection:
            _prepare_schema(connection, url, catalogue)
        return database

    @classmethod
    def open_existing(cls, url: URL) -> "Database":
        """Open the database of a shop, which must be there.

        Args:
            url: URL of the database.

        Raises:
            InputError: The SQLite file does not exist.
            DatabaseError: As `open`.
        """
        is_file = url.get_backend_name() == "sqlite" and not str(url.database).startswith("file:")
        if is_file and not Path(str(url.database)).is_file():
            raise InputError(f"database {display_name(url)}: there is no such file")
        return cls.open(url)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Open a session that commits on success and rolls back on error."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Translate the database's errors into a one-line `DatabaseError`."""
        with translate_errors(self.url):
            yield

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _create_engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url)
    event.listen(engine, "connect", _configure_sqlite)
    # By default, SQLite takes its write lock at the first write, which fails if another
    # writer committed meanwhile. Taken at the beginning, the lock makes writers queue.
    event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _configure_sqlite(connection: sqlite3.Connection, record: Any) -> None:
    del record
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
    connection.execute("PRAGMA foreign_keys = ON")
    _use_wal(connection)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch a database to write-ahead logging.

    The switch needs the whole database, and does not wait for another process that makes it.
    """
    deadline = time.monotonic() + _BUSY_MILLISECONDS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_WAL_RETRY_SECONDS)
        else:
            return


def _prepare_schema(connection: Connection, url: URL, catalogue: Catalogue | None) -> None:
    lock_schema(connection)
    name = display_name(url)
    is_new = not inspect(connection).has_table("customers")
    if is_new:
        # The table may be there: other programs have one of this name too.
        if read_revision(connection) is not None:
            raise DatabaseError(
                f"database {name}: another program has its tables in it; a shop needs a database"
                " of its own"
            )
        Base.metadata.create_all(connection)
        connection.execute(insert(SchemaRevision).values(version_num=SCHEMA_REVISION))
    revision = read_revision(connection)
    if revision != SCHEMA_REVISION:
        older = revision is None or revision < SCHEMA_REVISION
        raise DatabaseError(
            f"database {name}: its schema is {revision or 'older than v0001'}, this program needs"
            f" {SCHEMA_REVISION}; "
            + (f"run `gpt2flow agent migrate --database {name}`" if older else "upgrade gpt2flow")
        )
    # A read-only file fails at its first write, so write here to fail early.
    connection.execute(update(SchemaRevision).values(version_num=SchemaRevision.version_num))
    if is_new or catalogue is not None:
        with Session(connection) as session:
            seed(session, catalogue or load_catalogue())
            session.flush()


def lock_schema(connection: Connection) -> None:
    """Wait until no other process creates or migrates the schema.

    SQLite locks by itself.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})


def read_revision(connection: Connection) -> str | None:
    """Return the revision of the schema; None if the database has none."""
    if not inspect(connection).has_table(SchemaRevision.__tablename__):
        return None
    return connection.scalar(select(SchemaRevision.version_num))
