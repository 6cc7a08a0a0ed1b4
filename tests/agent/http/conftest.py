"""Fixtures: an agent on a scripted model, and endpoints of it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.support.http_endpoint import (
    SECRET,
    HeldModel,
    RunningEndpoint,
    Served,
    running_endpoint,
)

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.http.config import HttpConfig

Open = Callable[..., AbstractContextManager[RunningEndpoint]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, new_shop: Path) -> Iterator[Served]:
    """Agent that the tests of a module share."""
    path = tmp_path_factory.mktemp("http") / "shop.sqlite"
    path.write_bytes(new_shop.read_bytes())
    held = threading.Event()
    model = HeldModel(lambda _prompt: held.is_set())
    with Agent(AgentConfig(database=str(path)), model=model) as agent:
        yield Served(agent, model, str(path), held)


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secrets"
    path.write_text(f"{SECRET}\n")
    return path


@pytest.fixture
def open_endpoint(served: Served) -> Iterator[Open]:
    """Function that opens an endpoint with settings."""

    def open_with(*, secret: str | None = None, **settings: Any) -> Any:
        return running_endpoint(served, HttpConfig(**settings), secret)

    yield open_with
    served.held.clear()
    served.model.error = None
    served.failing.clear()


@pytest.fixture
def endpoint(open_endpoint: Open) -> Iterator[RunningEndpoint]:
    """Endpoint that takes unsigned requests."""
    with open_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def signed(open_endpoint: Open, secret_file: Path) -> Iterator[RunningEndpoint]:
    """Endpoint that takes signed requests only, with a client that signs."""
    with open_endpoint(secret_file=secret_file, secret=SECRET) as endpoint:
        yield endpoint
