"""TLS: trusted clients, renewed certificates and bad files."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from tests.support.certificates import Authority
from tests.support.running_server import PROMPT, greedy, server_config, serving
from tests.support.tls_site import TlsSite, connector
from tests.support.waiting import SECONDS

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub
from gpt2flow.server import ConfigError, ServerConfig, serve

pytestmark = pytest.mark.process

LIST = pb.ListModelsRequest()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def site(authority: Authority, tmp_path: Path) -> TlsSite:
    return TlsSite(tmp_path, authority, authority.issue("server", "localhost"))


async def reaches(connect: Callable[[str], Any], port: int) -> bool:
    """Return whether a new connection is accepted."""
    async with connect(f"localhost:{port}") as channel:
        call = InferenceServiceStub(channel).ListModels(LIST, timeout=SECONDS)
        code = await call.code()
    assert code in {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    return bool(code == grpc.StatusCode.OK)


async def test_generation_over_tls(bundle: Path, site: TlsSite) -> None:
    async with serving(
        server_config(bundle, security=site.security()), site.connector()
    ) as running:
        request = pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(5))
        messages = await running.stream(request)
        assert messages[-1].end.result.usage.completion_tokens == 5
        assert not await reaches(connector(Authority()), running.port)
        assert not await reaches(grpc.aio.insecure_channel, running.port)


async def test_clients_must_show_a_certificate_of_the_client_ca(
    bundle: Path, site: TlsSite
) -> None:
    clients = Authority()
    good = site.connector(clients.issue("shop"))
    async with serving(
        server_config(bundle, security=site.security(clients.chain)), good
    ) as running:
        await running.stub.ListModels(LIST)
        assert not await reaches(site.connector(), running.port)
        assert not await reaches(site.connector(site.authority.issue("shop")), running.port)


@pytest.mark.parametrize(
    "common_name,names,caller", [("shop", ("a.b",), "shop"), (None, ("a.b", "c.d"), "a.b")]
)
async def test_the_certificate_names_the_caller(
    bundle: Path,
    site: TlsSite,
    *,
    common_name: str | None,
    names: tuple[str, ...],
    caller: str,
) -> None:
    connect = site.connector(site.authority.issue(common_name, *names))
    security = site.security(site.authority.chain)
    async with serving(server_config(bundle, security=security), connect) as running:
        with structlog.testing.capture_logs() as logs:
            await running.stub.ListModels(LIST)
    assert [line["caller"] for line in logs] == [caller]


async def test_renewed_files_are_used_and_broken_ones_are_not(bundle: Path, site: TlsSite) -> None:
    connect = site.connector()
    async with serving(server_config(bundle, security=site.security()), connect) as running:
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
        # The connection made before the renewal stays open.
        await running.stub.ListModels(LIST)


async def served(port: int) -> bytes:
    """Return the certificate shown to a new connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    async with asyncio.timeout(SECONDS):
        _, writer = await asyncio.open_connection("localhost", port, ssl=context)
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return ssl.DER_cert_to_PEM_cert(certificate).strip().encode()


async def test_replacing_the_client_ca_refuses_old_clients(bundle: Path, site: TlsSite) -> None:
    old, new = Authority(), Authority()
    with_old = site.connector(old.issue("shop"))
    with_new = site.connector(new.issue("shop"))
    async with serving(
        server_config(bundle, security=site.security(old.chain)), with_old
    ) as running:
        assert not await reaches(with_new, running.port)
        site.client_ca.write_bytes(old.chain + new.chain)
        assert await reaches(with_new, running.port)
        assert await reaches(with_old, running.port)
        site.client_ca.write_bytes(new.chain)
        assert await reaches(with_new, running.port)
        assert not await reaches(with_old, running.port)


BAD_FILES = [
    ("server.pem", None, "--tls-certificate {path}: No such file or directory"),
    ("server.key", None, "--tls-key {path}: No such file or directory"),
    ("ca.pem", None, "--tls-client-ca {path}: No such file or directory"),
    ("server.pem", b"nonsense", "--tls-certificate {path}: holds no certificate in PEM format"),
    ("server.pem", b"", "--tls-certificate {path}: holds no certificate in PEM format"),
    ("server.pem", b"\xff\x00", "--tls-certificate {path}: holds no certificate in PEM format"),
    ("ca.pem", b"nonsense", "--tls-client-ca {path}: holds no certificate in PEM format"),
    ("server.key", b"nonsense", "--tls-key {path}: holds no private key in PEM format"),
]


@pytest.mark.parametrize("name,content,message", BAD_FILES)
def test_a_bad_tls_file_fails_the_start(
    bundle: Path,
    site: TlsSite,
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


def test_a_mismatched_or_encrypted_key_fails_the_start(bundle: Path, site: TlsSite) -> None:
    config = ServerConfig(models={"m": bundle}, port=0, security=site.security())
    site.key.write_bytes(site.authority.key())
    with pytest.raises(ConfigError, match=r"server\.key: is not the key of .*server\.pem"):
        serve(config)
    site.key.write_bytes(site.server.key(b"secret"))
    with pytest.raises(ConfigError, match=r"server\.key: has a passphrase; give a key without"):
        serve(config)
