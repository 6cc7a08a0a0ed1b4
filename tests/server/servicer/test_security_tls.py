"""TLS: who may connect, and files that are renewed or wrong."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from tests.support.certificates import Authority
from tests.support.running_server import PROMPT, greedy, serving
from tests.support.tls_site import Site, connecting

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub
from gpt2flow.server import ConfigError, ServerConfig, serve

LIST = pb.ListModelsRequest()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def site(authority: Authority, tmp_path: Path) -> Site:
    return Site(tmp_path, authority, authority.issue("server", "localhost"))


async def reaches(connect: Callable[[str], Any], port: int) -> bool:
    """Return whether a new connection can be made; no other failure is expected."""
    async with connect(f"localhost:{port}") as channel:
        call = InferenceServiceStub(channel).ListModels(LIST, timeout=10)
        code = await call.code()
    assert code in {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    return bool(code == grpc.StatusCode.OK)


async def test_generation_over_tls(bundle: Path, site: Site) -> None:
    async with serving(bundle, site.connecting(), security=site.security()) as running:
        request = pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(5))
        messages = await running.stream(request)
        assert messages[-1].end.result.usage.completion_tokens == 5
        assert not await reaches(connecting(Authority()), running.port)
        assert not await reaches(grpc.aio.insecure_channel, running.port)


async def test_clients_must_show_a_certificate_of_the_ca(bundle: Path, site: Site) -> None:
    clients = Authority()
    good = site.connecting(clients.issue("shop"))
    async with serving(bundle, good, security=site.security(clients.chain)) as running:
        await running.stub.ListModels(LIST)
        assert not await reaches(site.connecting(), running.port)
        assert not await reaches(site.connecting(site.authority.issue("shop")), running.port)


@pytest.mark.parametrize(
    "common_name,names,called", [("shop", ("a.b",), "shop"), (None, ("a.b", "c.d"), "a.b")]
)
async def test_the_certificate_names_the_caller(
    bundle: Path,
    site: Site,
    *,
    common_name: str | None,
    names: tuple[str, ...],
    called: str,
) -> None:
    connect = site.connecting(site.authority.issue(common_name, *names))
    security = site.security(site.authority.chain)
    async with serving(bundle, connect, security=security) as running:
        with structlog.testing.capture_logs() as logs:
            await running.stub.ListModels(LIST)
    assert [line["caller"] for line in logs] == [called]


async def test_renewed_files_are_served_and_broken_ones_are_not(bundle: Path, site: Site) -> None:
    connect = site.connecting()
    async with serving(bundle, connect, security=site.security()) as running:
        await running.stub.ListModels(LIST)
        first = await served(running.port)
        renewed = site.authority.issue("renewed", "localhost")
        with structlog.testing.capture_logs() as logs:
            site.chain.write_bytes(renewed.chain)
            assert await served(running.port) == await served(running.port) == first
            assert [line["event"] for line in logs] == ["reload_failed"]
            assert logs[0]["reason"].endswith(f"is not the key of {site.chain}")
            site.key.write_bytes(renewed.key())
            assert await served(running.port) == renewed.chain.strip()
            assert logs[-1]["event"] == "reloaded"
            site.key.unlink()
            assert await served(running.port) == renewed.chain.strip()
            assert logs[-1]["reason"].endswith("No such file or directory")
            assert await reaches(connect, running.port)
        # The connection from before the renewal lives on.
        await running.stub.ListModels(LIST)


async def served(port: int) -> bytes:
    """Return the certificate that a new connection gets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    async with asyncio.timeout(10):
        _, writer = await asyncio.open_connection("localhost", port, ssl=context)
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return ssl.DER_cert_to_PEM_cert(certificate).strip().encode()


async def test_another_ca_locks_the_old_clients_out(bundle: Path, site: Site) -> None:
    old, new = Authority(), Authority()
    with_old = site.connecting(old.issue("shop"))
    with_new = site.connecting(new.issue("shop"))
    async with serving(bundle, with_old, security=site.security(old.chain)) as running:
        assert not await reaches(with_new, running.port)
        site.client_ca.write_bytes(old.chain + new.chain)
        assert await reaches(with_new, running.port)
        assert await reaches(with_old, running.port)
        site.client_ca.write_bytes(new.chain)
        assert await reaches(with_new, running.port)
        assert not await reaches(with_old, running.port)


WRONG = [
    ("server.pem", None, "--tls-certificate {path}: No such file or directory"),
    ("server.key", None, "--tls-key {path}: No such file or directory"),
    ("ca.pem", None, "--tls-client-ca {path}: No such file or directory"),
    ("server.pem", b"nonsense", "--tls-certificate {path}: holds no certificate in PEM format"),
    ("server.pem", b"", "--tls-certificate {path}: holds no certificate in PEM format"),
    ("server.pem", b"\xff\x00", "--tls-certificate {path}: holds no certificate in PEM format"),
    ("ca.pem", b"nonsense", "--tls-client-ca {path}: holds no certificate in PEM format"),
    ("server.key", b"nonsense", "--tls-key {path}: holds no private key in PEM format"),
]


@pytest.mark.parametrize("name,content,message", WRONG)
def test_a_wrong_file_stops_the_start(
    bundle: Path,
    site: Site,
    capfd: pytest.CaptureFixture[str],
    *,
    name: str,
    content: bytes | None,
    message: str,
) -> None:
    security = site.security(site.authority.chain)
    path = site.directory / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        serve(ServerConfig(models={"m": bundle}, port=0, security=security))
    assert str(caught.value) == message.format(path=path)
    assert capfd.readouterr() == ("", "")


def test_a_key_that_does_not_serve_stops_the_start(bundle: Path, site: Site) -> None:
    config = ServerConfig(models={"m": bundle}, port=0, security=site.security())
    site.key.write_bytes(site.authority.key())
    with pytest.raises(ConfigError, match=r"server\.key: is not the key of .*server\.pem"):
        serve(config)
    site.key.write_bytes(site.server.key(b"secret"))
    with pytest.raises(ConfigError, match=r"server\.key: has a passphrase; give a key without"):
        serve(config)
