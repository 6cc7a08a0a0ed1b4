"""Tests of `gpt2flow health` and of the ready file."""

import asyncio
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from tests.support.command_line import gpt2flow
from tests.support.project import SHIPPED_BUNDLE


def run_health(*arguments: str) -> tuple[int, str, str]:
    code, out, err = gpt2flow("health", *arguments)
    return code, out.strip(), err.strip()


def test_a_running_server_and_its_model_are_serving(address: str) -> None:
    assert run_health("--address", address) == (0, "SERVING", "")
    assert run_health("--address", address, "--model", "shop") == (0, "SERVING", "")


def test_an_unknown_model_fails(address: str) -> None:
    code, out, err = run_health("--address", address, "--model", "absent")
    assert (code, out) == (1, "")
    assert err == f"gpt2flow: error: the server at {address} has no model 'absent'"


def test_the_health_of_one_server_is_asked_for(address: str) -> None:
    code, _, err = run_health("--address", f"{address},{address}")
    assert code == 2
    assert "must be host:port or unix:PATH" in err


async def test_a_draining_server_is_not_serving() -> None:
    draining = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, draining)
    port = draining.add_insecure_port("127.0.0.1:0")
    await draining.start()
    await servicer.set("shop", HealthCheckResponse.SERVING)
    await servicer.enter_graceful_shutdown()
    for model in ([], ["--model", "shop"]):
        code, out, err = await asyncio.to_thread(
            run_health, "--address", f"127.0.0.1:{port}", *model
        )
        assert (code, out) == (1, "")
        assert err.endswith("is NOT_SERVING")
    await draining.stop(None)


def test_a_server_exits_if_it_cannot_write_its_ready_file(tmp_path: Path) -> None:
    ready = tmp_path / "nowhere" / "ready"
    arguments = ("--model", str(SHIPPED_BUNDLE), "--address", "127.0.0.1:0")
    code, _, err = gpt2flow("serve", *arguments, "--ready-file", str(ready))
    assert code == 2
    *log, error = err.splitlines()
    assert error == f"gpt2flow: error: --ready-file {ready}: No such file or directory"
    assert all(line.startswith("{") for line in log)
