"""Fixtures: a shop, its console, and people."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.browser import browser
from tests.support.console import RunningConsole, Tokens, Visitor, running_console
from tests.support.new_shop import book, new_shop
from tests.support.project import SHIPPED_BUNDLE
from tests.support.server_process import ServerProcess, server_process
from tests.support.shop import Shop
from tests.support.site_fixtures import database, shop, tokens

__all__ = ["book", "browser", "database", "new_shop", "shop", "tokens"]


@pytest.fixture
def console(shop: Shop, database: Path, tokens: Tokens) -> Iterator[RunningConsole]:
    with running_console(database, tokens, shop.clock) as running:
        yield running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Server of the shipped model."""
    folder = tmp_path_factory.mktemp("server")
    with server_process(SHIPPED_BUNDLE, folder, name="shop", limits=("--threads", "1")) as process:
        yield process


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """Folder of two evaluation reports, and a file that is none."""
    folder = tmp_path / "reports"
    folder.mkdir()
    for name, rate in (("before", 0.625), ("after", 0.858)):
        report = {
            "scenarios": 240,
            "pass^1": {"rate": rate, "low": rate - 0.05, "high": rate + 0.05},
            "by_kind": {"messy": {"pass^1": {"rate": rate - 0.1, "low": 0, "high": 1}}},
            "harm": {"conversations": 3, "rate": 0.0125},
        }
        (folder / f"{name}.json").write_text(json.dumps(report), encoding="utf-8")
    (folder / "other.json").write_text("[1, 2]", encoding="utf-8")
    return folder


@pytest.fixture
def full_console(
    shop: Shop, database: Path, tokens: Tokens, server: ServerProcess, reports: Path
) -> Iterator[RunningConsole]:
    """Console in front of a server, with evaluation reports."""
    [ready] = server.events("ready")
    settings = {
        "server": server.address,
        "metrics": f"http://127.0.0.1:{ready['metrics_port']}/metrics",
        "reports": reports,
    }
    with running_console(database, tokens, shop.clock, **settings) as running:
        yield running


@pytest.fixture
def ben(console: RunningConsole) -> Iterator[Visitor]:
    """Somebody who may approve any amount."""
    with console.person("ben") as visitor:
        yield visitor


@pytest.fixture
def eva(console: RunningConsole) -> Iterator[Visitor]:
    """Somebody who may approve up to 100.00."""
    with console.person("eva") as visitor:
        yield visitor


@pytest.fixture
def hal(console: RunningConsole) -> Iterator[Visitor]:
    """Somebody who may handle cases, and decide none."""
    with console.person("hal") as visitor:
        yield visitor
