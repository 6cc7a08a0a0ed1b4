"""Clients that die, freeze, stay silent or send garbage disturb no others."""

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fault_client import assert_all_slots_free, assert_nothing_left, canary
from tests.support.http2 import PREFACE, SETTINGS
from tests.support.project import PROJECT
from tests.support.server_process import ServerProcess, server_process
from tests.support.waiting import eventually

CLIENTS, STREAMS = 3, 8
GARBAGE = (
    b"",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    b"\x00" * 100_000,
    PREFACE,
    PREFACE + b"\xff" * 50_000,
    # A header block that never ends.
    PREFACE + SETTINGS + b"\x00\x40\x00\x01\x00\x00\x00\x00\x01" * 9,
)


@pytest.fixture(scope="module")
def server(
    bundle: Path, short_keepalive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    with server_process(bundle, folder, "--config", str(short_keepalive)) as process:
        yield process


@contextlib.contextmanager
def clients(server: ServerProcess) -> Iterator[list["subprocess.Popen[str]"]]:
    """Run client processes that stream; enter when all their streams have started."""
    command = [sys.executable, "-m", "tests.support.streaming_client", server.address, str(STREAMS)]
    processes = [
        subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
        for _ in range(CLIENTS)
    ]
    try:
        for each in processes:
            assert each.stdout is not None
            assert each.stdout.readline() == "streaming\n"
        yield processes
    finally:
        for each in processes:
            each.kill()
            each.communicate()


def test_killed_clients_leave_nothing_behind(server: ServerProcess) -> None:
    before, answer = server.baseline(), canary(server.address)
    with clients(server) as processes:
        for each in processes:
            each.kill()
        assert_nothing_left(server, before)
    assert canary(server.address) == answer


def test_frozen_clients_are_disconnected(server: ServerProcess) -> None:
    """Their connections stay open, but are not read and answer no ping."""
    before, answer = server.baseline(), canary(server.address)
    with clients(server) as processes:
        for each in processes:
            each.send_signal(signal.SIGSTOP)
        assert_all_slots_free(server.address)
        assert canary(server.address) == answer
        eventually(lambda: server.footprint().descriptors <= before.descriptors)
        assert_nothing_left(server, before)


def test_connections_that_send_garbage_are_closed(server: ServerProcess) -> None:
    before, answer = server.baseline(), canary(server.address)
    with contextlib.ExitStack() as stack:
        for number in range(100):
            each = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            each.settimeout(60)
            with contextlib.suppress(OSError):  # The server may close the connection at any time.
                each.sendall(GARBAGE[number % len(GARBAGE)])
        assert canary(server.address) == answer
        assert_nothing_left(server, before)
