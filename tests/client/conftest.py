"""The shipped bundle behind a real server: the client is tested against nothing less."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt2flow.cli.processes import server

BUNDLE = Path(__file__).parents[2] / "models" / "shop"


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(BUNDLE, tmp_path_factory.mktemp("server")) as where:
        yield where
