"""Log on a full disk or closed pipe: no request is lost."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import grpc
import pytest
from tests.support.fault_client import POOLED, assert_serving, canary, generate, greedy
from tests.support.server_process import server_process
from tests.support.waiting import eventually

REQUESTS = 50


@contextmanager
def full_disk() -> Iterator[int]:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@contextmanager
def closed_pipe() -> Iterator[int]:
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize("log", [full_disk, closed_pipe])
def test_a_log_that_cannot_be_written_loses_no_request(
    log: Callable[[], AbstractContextManager[int]], bundle: Path, tmp_path: Path
) -> None:
    with log() as descriptor, server_process(bundle, tmp_path, stderr=descriptor) as server:
        answer = canary(server.address)
        before = server.baseline()
        for _ in range(REQUESTS):
            with pytest.raises(grpc.RpcError):
                generate(server.address, greedy(0))
            assert canary(server.address) == answer
        # The server sees closed connections a moment later.
        eventually(lambda: server.footprint().descriptors <= before.descriptors)
        assert server.footprint().threads <= before.threads + POOLED
        assert_serving(server.address)
        server.stop()
