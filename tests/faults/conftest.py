"""Server process on the tiny bundle, and settings of others."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.server_process import ServerProcess, server_process
from tests.support.tiny_model import bundle, checkpoint

__all__ = ["bundle", "checkpoint", "server"]


@pytest.fixture(scope="session")
def short_keepalive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings file of a server that soon closes connections to silent clients."""
    path = tmp_path_factory.mktemp("config") / "server.toml"
    path.write_text("[connections]\nkeepalive_seconds = 1.0\nkeepalive_timeout_seconds = 1.0\n")
    return path


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Server process of a test file; tests must leave it unchanged."""
    with server_process(bundle, tmp_path_factory.mktemp("server")) as process:
        yield process
