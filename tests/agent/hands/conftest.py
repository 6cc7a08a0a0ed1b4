"""Fixtures of the tests of hands: a new shop."""

import shutil
from pathlib import Path

import pytest
from tests.support.browser import browser, chromium_path
from tests.support.new_shop import book, new_shop

__all__ = ["book", "browser", "new_shop"]


@pytest.fixture
def path(tmp_path: Path, new_shop: Path) -> Path:
    """Database of a new shop."""
    chromium_path()
    return Path(shutil.copy(new_shop, tmp_path / "shop.sqlite"))
