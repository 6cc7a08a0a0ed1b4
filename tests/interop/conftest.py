"""Fixtures of a real server with the shipped bundle, for third-party clients."""

from collections.abc import Iterator

import grpc
import pytest
from tests.support.project import SHIPPED_BUNDLE

from gpt2flow.cli.demo.processes import server


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(SHIPPED_BUNDLE, tmp_path_factory.mktemp("server")) as where:
        yield where


@pytest.fixture
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address) as opened:
        yield opened
