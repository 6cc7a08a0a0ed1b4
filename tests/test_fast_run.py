"""Rule of fast runs: no process starts, and no port opens."""

import asyncio
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from tests.support.fast_run import refuse_processes


@pytest.mark.parametrize(
    "action",
    [
        lambda: subprocess.run(["true"], check=True),
        lambda: socket.create_connection(("127.0.0.1", 9)),
        lambda: socket.socket().bind(("127.0.0.1", 0)),
        lambda: socket.socket(socket.AF_INET6).connect_ex(("::1", 9)),
        lambda: grpc.server(ThreadPoolExecutor(1)),
        lambda: grpc.aio.server(options=()),
    ],
)
def test_a_fast_run_refuses_processes_and_ports(
    monkeypatch: pytest.MonkeyPatch, action: Callable[[], Any]
) -> None:
    refuse_processes(monkeypatch)
    with pytest.raises(AssertionError, match="mark it `process`"):
        action()


def test_a_fast_run_allows_event_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """They connect sockets of this process."""
    refuse_processes(monkeypatch)
    asyncio.run(asyncio.sleep(0))
