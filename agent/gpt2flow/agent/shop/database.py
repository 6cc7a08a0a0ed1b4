"""Opens the shop's database, on SQLite or PostgreSQL."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, select, text, update
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Mapped, Session, mapped_column

from gpt2flow.agent.errors import DatabaseError, InputError
from gpt2flow.agent.shop.base import Base
from gpt2flow.agent.shop.catalogue import load_catalogue, seed

SCHEMA_VERSION = 1
# How long a writer waits for another one before it gives up.
_BUSY_MILLISECONDS = 10_000
# Any number will do that nothing else in the same PostgreSQL database locks.
_SCHEMA_LOCK = 7_213_501


class SchemaVersion(Base):
    """One row: the version of the schema that this database has."""

    __tablename__ = "schema_version"

    version: Mapped[int] = mapped_column(primary_key=True)


def database_url(text_or_path: str) -> URL:
    """Read a database's address.

    Args:
        text_or_path: an SQLAlchemy URL (`sqlite:///…`, `postgresql://…`), or
            the path of an SQLite file.

    Raises:
        InputError: it is neither SQLite in a file nor PostgreSQL.
    """
    if not text_or_path.strip():
        raise InputError("the database has no address")
    if "://" not in text_or_path:
        return URL.create("sqlite", database=text_or_path)
    try:
        url = make_url(text_or_path)
    except (ArgumentError, ValueError) as error:
        raise InputError(f"database {text_or_path!r} is no URL: {error}") from error
    match url.get_backend_name():
        case "sqlite" if url.database not in (None, "", ":memory:"):
            return url
        case "sqlite":
            raise InputError("an SQLite database must be a file: its work has to survive a crash")
        case "postgresql" | "postgres":
            return url.set(drivername="postgresql+psycopg")
        case other:
            raise InputError(f"database {other!r} is not supported, only sqlite and postgresql")


@contextmanager
def failures_named(url: URL) -> Iterator[None]:
    """Turns the failures of a database into one clear line.

    Raises:
        DatabaseError: what happened inside failed; names the database.
    """
    try:
        yield
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise DatabaseError(f"database {_name(url)}: {cause}") from error


def _name(url: URL) -> str:
    """A file's path; an address without its password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.set(drivername="postgresql").render_as_string(hide_password=True)


class Database:
    """An open shop database."""

    def __init__(self, url: URL) -> None:
        """Prepare connections without making one; `open` is the way in."""
        self.url = url
        self.engine = _engine(url)

    @classmethod
    def open(cls, url: URL) -> "Database":
        """Open a database; creates and seeds what is missing.

        Raises:
            DatabaseError: it cannot be opened or written, or has another schema.
            InputError: the driver of the database is not installed.
        """
        try:
            database = cls(url)
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            raise InputError(f"database {_name(url)}: {error}") from error
        with database.guarded(), database.engine.begin() as connection:
            _prepare(connection, url)
        return database

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that commits at the end, or rolls back on any exception."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turns the database's failures into one clear line."""
        with failures_named(self.url):
            yield

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url)
    event.listen(engine, "connect", _configure_sqlite)
    # SQLite would take its write lock only at the first write, when a reader may
    # no longer get it; taken at the beginning, writers queue instead of failing.
    event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _configure_sqlite(connection: sqlite3.Connection, record: Any) -> None:
    del record
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout = {_BUSY_MILLISECONDS}",
        "journal_mode = WAL",
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _prepare(connection: Connection, url: URL) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
    if not connection.dialect.has_table(connection, SchemaVersion.__tablename__):
        Base.metadata.create_all(connection)
        with Session(connection) as session:
            session.add(SchemaVersion(version=SCHEMA_VERSION))
            seed(session, load_catalogue())
            session.flush()
    # A file that may only be read would let everything but a write pass.
    connection.execute(update(SchemaVersion).values(version=SchemaVersion.version))
    version = connection.scalar(select(SchemaVersion.version))
    if version != SCHEMA_VERSION:
        raise DatabaseError(
            f"database {_name(url)}: schema version {version}, not {SCHEMA_VERSION}"
        )
