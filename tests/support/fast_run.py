"""Refusal of processes and connections in fast runs."""

import socket
import subprocess
from collections.abc import Callable
from typing import Any

import grpc
import pytest


def refuse_processes(patch: pytest.MonkeyPatch) -> None:
    """Make processes, gRPC servers and connections over IP raise an `AssertionError`."""
    patch.setattr(subprocess.Popen, "__init__", _refuse)
    # The ports of gRPC are not opened in Python.
    patch.setattr(grpc, "server", _refuse)
    patch.setattr(grpc.aio, "server", _refuse)
    for name in ("bind", "connect", "connect_ex"):
        patch.setattr(socket.socket, name, _without_ip(getattr(socket.socket, name)))


def _refuse(*_args: Any, **_options: Any) -> None:
    raise AssertionError("a fast test starts no process and opens no port; mark it `process`")


def _without_ip(method: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, *args: Any) -> Any:
        if self.family in {socket.AF_INET, socket.AF_INET6}:
            _refuse()
        return method(self, *args)

    return guarded
