"""Shipped bundle, served on a real port."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.project import PROJECT

from gpt2flow.cli.demo.processes import server


@pytest.fixture(scope="session")
def bundle() -> Path:
    return PROJECT / "models" / "shop"


@pytest.fixture(scope="session")
def address(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(bundle, tmp_path_factory.mktemp("server")) as server_address:
        yield server_address
