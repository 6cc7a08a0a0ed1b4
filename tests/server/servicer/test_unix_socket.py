"""Unix sockets: served like a port, never taken from a running server."""

import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from tests.support.certificates import AuthorityFiles
from tests.support.server_process import server_process
from tests.support.waiting import eventually

from gpt2flow.client import AsyncClient, Options, Security, Tls, UnavailableError
from gpt2flow.server import (
    BundleError,
    ConfigError,
    EngineConfig,
    SecurityConfig,
    Server,
    ServerConfig,
    StartupError,
    TelemetryConfig,
    parse_endpoint,
)
from gpt2flow.server.servicer import Listener

pytestmark = pytest.mark.process

SHORT = Options(max_new_tokens=2, ignore_eos=True)


def config(bundle: Path, path: Path | str, **options: Any) -> ServerConfig:
    """Return the settings of a server on a Unix socket."""
    engine = EngineConfig(threads=1, max_sequences=2)
    return ServerConfig(models={"m": bundle}, host=f"unix:{path}", engine=engine, **options)


@asynccontextmanager
async def serving(settings: ServerConfig) -> AsyncIterator[Server]:
    """Run a server until the block ends."""
    server = Server(settings)
    assert await server.start() == 0
    try:
        yield server
    finally:
        await server.stop()


async def generates(address: str, **options: Any) -> bool:
    """Return whether a server answers at an address."""
    async with AsyncClient(address, **options) as client:
        return (await client.generate("Where", SHORT)).usage.completion_tokens == 2


# gRPC decodes `%41` in an address.
@pytest.mark.parametrize("name", ["s.sock", "a b%41ö:1"])
async def test_a_server_on_a_socket_serves_and_removes_it(
    bundle: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    async with serving(config(bundle, path)):
        assert stat.S_ISSOCK(path.lstat().st_mode)
        assert await generates(f"unix:{path}")
        async with grpc.aio.insecure_channel(f"unix:{path}".replace("%", "%25")) as channel:
            health: Any = HealthStub(channel)
            status = (await health.Check(HealthCheckRequest(service="m"))).status
            assert status == HealthCheckResponse.SERVING
    assert not path.exists()


async def test_a_relative_path_and_a_uri_are_paths(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for written in ("s.sock", f"//{tmp_path}/s.sock"):
        async with serving(config(bundle, written)):
            assert (tmp_path / "s.sock").exists()
            assert await generates(f"unix:{tmp_path}/s.sock")


@pytest.mark.parametrize("mask, mode", [(0o022, 0o755), (0o077, 0o700), (0o007, 0o770)])
async def test_the_umask_decides_who_may_connect(
    bundle: Path, tmp_path: Path, mask: int, mode: int
) -> None:
    before = os.umask(mask)
    try:
        async with serving(config(bundle, tmp_path / "s.sock")):
            assert stat.S_IMODE((tmp_path / "s.sock").lstat().st_mode) == mode
    finally:
        os.umask(before)


async def test_the_socket_of_a_dead_server_is_replaced(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(config(bundle, path)):
        assert await generates(f"unix:{path}")


async def test_the_socket_of_a_running_server_is_left_to_it(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with serving(config(bundle, path)):
        message = rf"cannot listen on unix:{path}: another process listens there"
        with pytest.raises(StartupError, match=message):
            await Server(config(bundle, path)).start()
        assert await generates(f"unix:{path}")


async def test_the_socket_of_a_busy_process_is_left_to_it(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(StartupError, match="another process listens there"):
            await Server(config(bundle, path)).start()


async def test_an_address_that_cannot_be_a_socket_is_refused_with_the_reason(
    bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for path, reason in (
        (file, "the path exists and is no socket"),
        (tmp_path, "the path exists and is no socket"),
        (tmp_path / "nowhere" / "s.sock", "No such file or directory"),
        (tmp_path / ("x" * 120), "AF_UNIX path too long"),
    ):
        with pytest.raises(StartupError, match=f"cannot listen on unix:{path}: {reason}"):
            await Server(config(bundle, path)).start()
    assert file.read_text() == "x"
    assert capfd.readouterr() == ("", "")


async def test_a_failed_start_leaves_no_socket(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with pytest.raises(BundleError):
        await Server(config(tmp_path / "nowhere", path)).start()
    assert not path.exists()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        telemetry = TelemetryConfig(metrics_address=taken.getsockname())
        with pytest.raises(StartupError):
            await Server(config(bundle, path, telemetry=telemetry)).start()
    assert not path.exists()


def test_the_socket_of_a_later_server_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    path.touch()
    listener = Listener(0, path, path.lstat().st_ino)
    path.rename(tmp_path / "old.sock")
    path.touch()
    listener.remove()
    assert path.exists()
    Listener(0, path, path.lstat().st_ino).remove()
    assert not path.exists()
    listener.remove()


def test_plain_text_needs_no_insecure(tmp_path: Path) -> None:
    assert ServerConfig(models={"m": tmp_path}, host="unix:/s").socket_path == Path("/s")
    with pytest.raises(ConfigError, match="the address 'unix:' has no path, must be unix:PATH"):
        ServerConfig(models={"m": tmp_path}, host="unix:")


@pytest.mark.parametrize("text", ["here", "unix-abstract:x", "unix"])
def test_another_form_of_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"address '{text}' is not of the form host:port or unix"):
        parse_endpoint(text)


async def test_tls_holds_on_a_socket(bundle: Path, tmp_path: Path) -> None:
    authority = AuthorityFiles(tmp_path)
    pair, path = authority.pair("server"), tmp_path / "s.sock"
    security = SecurityConfig(tls_certificate=pair.certificate, tls_key=pair.key)
    async with serving(config(bundle, path, security=security)):
        tls = Tls(ca=authority.ca, server_name="server")
        assert await generates(f"unix:{path}", security=Security(tls=tls))
        with pytest.raises(UnavailableError):
            await generates(f"unix:{path}", retry=None)


def test_a_process_logs_the_socket_and_replaces_it_after_a_kill(
    bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s.sock"
    for _ in range(2):
        with server_process(bundle, tmp_path, "--address", f"unix:{path}") as server:
            assert (tmp_path / "port").read_text() == "0\n"
            assert server.events("ready")[-1]["host"] == f"unix:{path}"
            server.process.kill()
            server.process.wait()
        assert path.exists()
    with server_process(bundle, tmp_path, "--address", f"unix:{path}") as server:
        server.terminate()
        server.wait()
        eventually(lambda: not path.exists())
