"""Fixtures of a new shop: its flows, and a database to copy."""

from pathlib import Path

import pytest

from gpt2flow.agent.flows import FlowBook, load_flows
from gpt2flow.agent.shop import Database, database_url


@pytest.fixture(scope="session")
def book() -> FlowBook:
    return load_flows()


@pytest.fixture(scope="session")
def new_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Database file of a newly opened shop; tests work on copies."""
    path = tmp_path_factory.mktemp("shop") / "new.sqlite"
    Database.open(database_url(str(path))).close()
    return path
