"""Tests of the commands on the Unix socket of a server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.command_line import gpt2flow
from tests.support.project import SHIPPED_BUNDLE
from tests.support.server_process import server_process


@pytest.fixture(scope="module")
def unix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server of the shipped model on a Unix socket."""
    folder = tmp_path_factory.mktemp("unix")
    address = f"unix:{folder / 's.sock'}"
    with server_process(SHIPPED_BUNDLE, folder, "--address", address, name="shop"):
        yield address


def test_commands_reach_the_server(unix: str, tmp_path: Path) -> None:
    assert gpt2flow("health", "--address", unix) == (0, "SERVING\n", "")
    code, out, err = gpt2flow("generate", "hi", "--address", unix, "--max-new-tokens", "3")
    assert (code, err) == (0, "")
    assert out
    load = ("--requests", "2", "--concurrency", "1", "--warmup", "0", "--json")
    code, out, _ = gpt2flow("bench", "--address", unix, *load)
    assert code == 0
    assert json.loads(out)["address"] == unix
    code, out, err = gpt2flow("agent", "ask", "hello", "--address", unix, cwd=tmp_path)
    assert (code, err) == (0, "")


def test_a_missing_socket_is_reported_on_one_line(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/nowhere"
    for command in (["health"], ["generate", "hi"], ["bench"]):
        code, _, err = gpt2flow(*command, "--address", address)
        assert code == 1
        assert err.startswith(f"gpt2flow: error: no server answers at {address}")
        assert "No such file or directory" in err
        assert err.count("\n") == 1
