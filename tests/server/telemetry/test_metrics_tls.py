"""Metrics by HTTPS: certificates, their renewal, and bad files."""

import asyncio
import socket
import ssl
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.support.certificates import Authority, AuthorityFiles, Pair
from tests.support.running_server import RunningServer, server_config, serving
from tests.support.scraping import LOOPBACK
from tests.support.tls_site import TlsSite
from tests.support.waiting import SECONDS

from gpt2flow.server import ConfigError, Server, ServerConfig, TelemetryConfig

pytestmark = pytest.mark.process


@pytest.fixture
def files(tmp_path: Path) -> AuthorityFiles:
    return AuthorityFiles(tmp_path)


def with_certificate(pair: Pair) -> TelemetryConfig:
    return TelemetryConfig(
        metrics_address=LOOPBACK,
        metrics_tls_certificate=pair.certificate,
        metrics_tls_key=pair.key,
    )


def fetch(port: int, scheme: str, trusted: str | None = None) -> str:
    """Return the metrics to a client that trusts a CA, in PEM."""
    context = ssl.create_default_context(cadata=trusted)
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    with opener.open(f"{scheme}://127.0.0.1:{port}/metrics", timeout=SECONDS) as response:
        text: str = response.read().decode()
    return text


async def scraped(running: RunningServer, scheme: str, trusted: str | None = None) -> str:
    assert running.server.metrics_port is not None
    return await asyncio.to_thread(fetch, running.server.metrics_port, scheme, trusted)


async def shown_certificate(running: RunningServer) -> str:
    """Return the certificate that a new connection is shown, in PEM."""
    port = running.server.metrics_port
    assert port is not None
    return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))


async def test_metrics_are_served_by_https_alone(bundle: Path, files: AuthorityFiles) -> None:
    telemetry = with_certificate(files.pair("metrics"))
    async with serving(server_config(bundle, telemetry=telemetry)) as running:
        trusted = files.ca.read_text()
        assert "gpt2flow_models_loaded 2.0" in await scraped(running, "https", trusted)
        for scheme, other in (("http", trusted), ("https", Authority().chain.decode())):
            with pytest.raises(OSError):  # noqa: PT011 - of the connection or its handshake
                await scraped(running, scheme, other)
        assert "gpt2flow_models_loaded 2.0" in await scraped(running, "https", trusted)


async def test_metrics_can_use_the_certificate_of_the_server(bundle: Path, tmp_path: Path) -> None:
    authority = Authority()
    site = TlsSite(tmp_path, authority, authority.issue("s", "localhost", addresses=["127.0.0.1"]))
    telemetry = TelemetryConfig(metrics_address=LOOPBACK, metrics_tls=True)
    config = server_config(bundle, telemetry=telemetry, security=site.security())
    async with serving(config, site.connector()) as running:
        text = await scraped(running, "https", authority.chain.decode())
        assert "gpt2flow_models_loaded 2.0" in text


async def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(
    bundle: Path, files: AuthorityFiles
) -> None:
    pair, renewed = files.pair("metrics"), files.pair("renewed")
    async with serving(server_config(bundle, telemetry=with_certificate(pair))) as running:
        first = await shown_certificate(running)
        assert first == pair.certificate.read_text()
        with structlog.testing.capture_logs() as logs:
            pair.certificate.write_bytes(renewed.certificate.read_bytes())
            assert await shown_certificate(running) == first
            assert logs[-1]["event"] == "reload_failed"
            assert f"--metrics-tls-key {pair.key}: is not the key of" in logs[-1]["reason"]
            pair.key.write_bytes(renewed.key.read_bytes())
            assert await shown_certificate(running) == renewed.certificate.read_text()
            assert logs[-1]["event"] == "reloaded"


async def test_a_client_that_never_shakes_hands_blocks_no_other(
    bundle: Path, files: AuthorityFiles
) -> None:
    telemetry = with_certificate(files.pair("metrics"))
    async with serving(server_config(bundle, telemetry=telemetry)) as running:
        port = running.server.metrics_port
        assert port is not None
        with socket.create_connection(("127.0.0.1", port)):
            text = await scraped(running, "https", files.ca.read_text())
        assert "gpt2flow_models_loaded 2.0" in text


@pytest.mark.parametrize("name", ["certificate", "key"])
def test_a_bad_file_fails_the_start(bundle: Path, files: AuthorityFiles, name: str) -> None:
    pair = files.pair("metrics")
    path: Path = getattr(pair, name)
    config = ServerConfig(models={"m": bundle}, port=0, telemetry=with_certificate(pair))
    path.write_text("nonsense")
    with pytest.raises(ConfigError, match=rf"^--metrics-tls-{name} {path}: holds no"):
        Server(config)
    path.unlink()
    with pytest.raises(ConfigError, match=rf"^--metrics-tls-{name} {path}: No such file"):
        Server(config)


@pytest.mark.parametrize(
    "telemetry,message",
    [
        ({"metrics_tls_key": Path("k")}, "--metrics-tls-key needs --metrics-tls-certificate"),
        (
            {"metrics_tls_certificate": Path("c")},
            "--metrics-tls-certificate needs --metrics-tls-key",
        ),
        ({"metrics_tls": True}, "--metrics-tls needs --tls-certificate and --tls-key"),
        (
            {"metrics_tls": True, "metrics_address": None},
            "--metrics-tls needs --metrics-address",
        ),
        (
            {
                "metrics_tls_certificate": Path("c"),
                "metrics_tls_key": Path("k"),
                "metrics_address": None,
            },
            "--metrics-tls-certificate needs --metrics-address",
        ),
        (
            {
                "metrics_tls": True,
                "metrics_tls_certificate": Path("c"),
                "metrics_tls_key": Path("k"),
            },
            "--metrics-tls-certificate is another one: give one of them",
        ),
    ],
)
def test_contradictory_settings_are_refused(telemetry: dict[str, Any], message: str) -> None:
    values = {"metrics_address": LOOPBACK} | telemetry
    with pytest.raises(ConfigError, match=message):
        ServerConfig(models={"m": Path("x")}, telemetry=TelemetryConfig(**values))
