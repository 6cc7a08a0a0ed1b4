"""The tiny bundle of the server's tests, behind a server process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.server.conftest import bundle, checkpoint
from tests.support.server_process import ServerProcess, server_process


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One process for all tests of a file; none may leave anything behind in it."""
    with server_process(bundle, tmp_path_factory.mktemp("server")) as process:
        yield process


__all__ = ["bundle", "checkpoint", "server"]
