"""Fixtures of websites: a shop on a file, and its people."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.shop import CODE, Clock, Shop
from tests.support.website import Tokens, new_tokens

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.shop import Database, database_url
from gpt2flow.agent.turns.execution import Executor


@pytest.fixture
def database(tmp_path: Path, new_shop: Path) -> Path:
    """Database file of the shop."""
    path = tmp_path / "shop.sqlite"
    path.write_bytes(new_shop.read_bytes())
    return path


@pytest.fixture
def shop(book: FlowBook, database: Path) -> Iterator[Shop]:
    """Shop of the file, with an agent's executor."""
    clock, opened = Clock(), Database.open(database_url(str(database)))
    yield Shop(book, opened, clock, Executor(book, opened, clock, lambda: CODE, 0.5))
    opened.close()


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    """File of tokens of everybody."""
    return new_tokens(tmp_path / "tokens.toml")
