"""Fixtures: a shop, its storefront, and people."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.browser import browser
from tests.support.new_shop import book, new_shop
from tests.support.shop import Shop
from tests.support.site_fixtures import database, shop, tokens
from tests.support.storefront import RunningStorefront, Shopper, running_storefront
from tests.support.storefront_windows import served, windows
from tests.support.website import Tokens

__all__ = ["book", "browser", "database", "new_shop", "served", "shop", "tokens", "windows"]


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
