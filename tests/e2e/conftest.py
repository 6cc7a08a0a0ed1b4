"""Shipped bundle, served on a real port."""

from pathlib import Path

import pytest
from tests.support.project import SHIPPED_BUNDLE
from tests.support.shipped_server import address

__all__ = ["address"]


@pytest.fixture(scope="session")
def bundle() -> Path:
    return SHIPPED_BUNDLE
