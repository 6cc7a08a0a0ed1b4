"""Fixtures: a shop database, a manual clock, and the flows."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest
from tests.support.new_shop import book, new_shop
from tests.support.postgresql import PostgresqlServer, ResettableShop
from tests.support.shop import CODE, Clock, Shop

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.shop import Database, database_url
from gpt2flow.agent.turns.execution import Executor

__all__ = ["book", "new_shop"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path, new_shop: Path) -> Path:
    """Database file of a newly opened shop."""
    path = tmp_path / "shop.sqlite"
    path.write_bytes(new_shop.read_bytes())
    return path


@pytest.fixture(scope="session")
def shared_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Database engine shared by all tests, because creating one is slow."""
    path = tmp_path_factory.mktemp("shared") / "shop.sqlite"
    database = Database.open(database_url(str(path)))
    yield database
    database.close()


@pytest.fixture
def sqlite_shop(shared_database: Database, new_shop: Path) -> Database:
    """Newly opened shop on SQLite, reset for each test."""
    connection = shared_database.engine.raw_connection()
    with closing(sqlite3.connect(new_shop)) as source:
        source.backup(cast("sqlite3.Connection", connection.driver_connection))
    connection.close()
    return shared_database


@pytest.fixture(scope="session")
def resettable_shop(postgresql: PostgresqlServer) -> Iterator[ResettableShop]:
    """Shop on PostgreSQL, shared by all tests as above."""
    with postgresql.database(postgresql.shop) as url:
        shop = ResettableShop(Database.open(database_url(url)))
        yield shop
        shop.database.close()


@pytest.fixture
def postgresql_shop(resettable_shop: ResettableShop) -> Database:
    """Newly opened shop on PostgreSQL, reset for each test."""
    return resettable_shop.reset()


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Database:
    """Newly opened shop.

    Tests that need both databases give this fixture parameters.
    """
    kind: str = getattr(request, "param", "sqlite")
    shop: Database = request.getfixturevalue(f"{kind}_shop")
    return shop


@pytest.fixture
def shop_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Path or URL of a newly opened shop; parameters as above."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield str(request.getfixturevalue("path"))
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    with server.database(server.shop) as url:
        yield url


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Path or URL of a database without tables; parameters as above."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield str(tmp_path / "empty.sqlite")
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    with server.database() as url:
        yield url


@pytest.fixture
def shop(book: FlowBook, database: Database, clock: Clock) -> Shop:
    return Shop(book, database, clock, Executor(book, database, clock, lambda: CODE, 0.5))
