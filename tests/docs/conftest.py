"""Servers that the pages of docs/ assume."""

from collections.abc import Iterator

import pytest
from tests.support.protected_server import Protected, protected_server
from tests.support.shipped_server import address

__all__ = ["address"]


@pytest.fixture(scope="session")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Protected]:
    with protected_server(tmp_path_factory.mktemp("protected")) as server:
        yield server
