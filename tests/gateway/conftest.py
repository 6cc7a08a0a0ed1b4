"""Fixtures: a server process and a gateway process that tests share."""

from collections.abc import Iterator

import pytest
from tests.support.gateway_process import RunningGateway, gateway_process
from tests.support.project import SHIPPED_BUNDLE
from tests.support.server_process import ServerProcess, server_process

from gpt2flow.client import Client


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Server of the shipped model, named `shop`."""
    folder = tmp_path_factory.mktemp("server")
    with server_process(SHIPPED_BUNDLE, folder, name="shop", limits=()) as process:
        yield process


@pytest.fixture(scope="session")
def gateway(
    server: ServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    """Gateway in front of `server`."""
    with gateway_process(server.address, tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def grpc_client(server: ServerProcess) -> Iterator[Client]:
    """Client of `server`, whose answers the gateway's must equal."""
    with Client(server.address) as client:
        yield client
