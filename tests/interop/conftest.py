"""Real server with the shipped bundle, for third-party clients."""

from collections.abc import Iterator

import grpc
import pytest
from tests.support.shipped_server import address

__all__ = ["address"]


@pytest.fixture
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address) as opened:
        yield opened
