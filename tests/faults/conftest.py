"""Server process on the tiny bundle."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.server_process import ServerProcess, server_process
from tests.support.tiny_model import bundle, checkpoint

__all__ = ["bundle", "checkpoint", "server"]


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Server process of a test file; tests must leave it unchanged."""
    with server_process(bundle, tmp_path_factory.mktemp("server")) as process:
        yield process
