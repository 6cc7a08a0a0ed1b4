"""Fixtures: a shop, its storefront, and people."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.new_shop import book, new_shop
from tests.support.shop import CODE, Clock, Shop
from tests.support.storefront import RunningStorefront, Shopper, running_storefront
from tests.support.website import Tokens, new_tokens

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.shop import Database, database_url
from gpt2flow.agent.turns.execution import Executor

__all__ = ["book", "new_shop"]


@pytest.fixture
def database(tmp_path: Path, new_shop: Path) -> Path:
    """Database file of the shop."""
    path = tmp_path / "shop.sqlite"
    path.write_bytes(new_shop.read_bytes())
    return path


@pytest.fixture
def shop(book: FlowBook, database: Path) -> Iterator[Shop]:
    clock, opened = Clock(), Database.open(database_url(str(database)))
    yield Shop(book, opened, clock, Executor(book, opened, clock, lambda: CODE, 0.5))
    opened.close()


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return new_tokens(tmp_path / "tokens.toml")


@pytest.fixture
def storefront(shop: Shop, database: Path, tokens: Tokens) -> Iterator[RunningStorefront]:
    with running_storefront(database, tokens, shop.clock) as running:
        yield running


@pytest.fixture
def ann(storefront: RunningStorefront) -> Iterator[Shopper]:
    """Customer who has registered and is logged in."""
    with storefront.shopper() as shopper:
        shopper.register()
        yield shopper


@pytest.fixture
def stranger(storefront: RunningStorefront) -> Iterator[Shopper]:
    """Somebody who has not been here before."""
    with storefront.shopper() as shopper:
        yield shopper


@pytest.fixture
def hal(storefront: RunningStorefront) -> Iterator[Shopper]:
    """Operator of the back office."""
    with storefront.operator("hal") as shopper:
        yield shopper
