"""Compressed messages are refused before they are inflated."""

import grpc
from tests.support.bombs import MAX_GROWTH, peak_bytes, refusal_of_bomb
from tests.support.fault_client import assert_nothing_left, canary
from tests.support.server_process import ServerProcess


def test_a_bomb_is_refused_before_it_takes_memory(server: ServerProcess) -> None:
    answer, before = canary(server.address), server.baseline()
    peak = peak_bytes(server.process.pid)
    assert refusal_of_bomb(server.address) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert peak_bytes(server.process.pid) < peak + MAX_GROWTH
    assert_nothing_left(server, before)
    assert canary(server.address) == answer
