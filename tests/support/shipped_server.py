"""Fixture of a server process on the shipped bundle."""

from collections.abc import Iterator

import pytest
from tests.support.project import SHIPPED_BUNDLE
from tests.support.server_process import server_process


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the server, whose model is named `shop`."""
    folder = tmp_path_factory.mktemp("server")
    with server_process(SHIPPED_BUNDLE, folder, name="shop", limits=()) as server:
        yield server.address
