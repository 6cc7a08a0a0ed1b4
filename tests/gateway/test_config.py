"""Settings of the gateway, and what is said about bad ones."""

from pathlib import Path
from typing import Any

import pytest
from tests.support.certificates import Authority, AuthorityFiles

from gpt2flow.gateway.config import GatewayConfig
from gpt2flow.gateway.errors import GatewayConfigError
from gpt2flow.web.certificates import check_certificate

SOME, OTHER = Path("some.pem"), Path("other.pem")


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"address": "nowhere"}, "address is 'nowhere', must be host:port"),
        ({"address": "127.0.0.1:99999"}, "address is '127.0.0.1:99999', must be host:port"),
        ({"metrics_address": "x"}, "metrics_address is 'x'"),
        ({"https_key": SOME}, "https_certificate and https_key need each other"),
        ({"https_certificate": SOME}, "https_certificate and https_key need each other"),
        (
            {"https_certificate": SOME, "https_key": OTHER},
            "https_certificate some.pem: No such file",
        ),
        (
            {"https_certificate": SOME, "https_key": OTHER, "plain_http": True},
            "plain_http excludes https_certificate",
        ),
        ({"request_timeout": 0.0}, "request_timeout is 0.0, must be finite and above 0"),
        ({"request_timeout": float("nan")}, "request_timeout is nan, must be finite and above 0"),
        ({"body_seconds": float("inf")}, "body_seconds is inf, must be finite and above 0"),
        ({"drain_seconds": -1.0}, "drain_seconds is -1.0, must be finite and not below 0"),
        ({"max_body_bytes": 0}, "max_body_bytes is 0, must be at least 1"),
        ({"max_connections": 0}, "max_connections is 0, must be at least 1"),
        ({"allowed_hosts": ("a b",)}, "allowed_host is 'a b', must be a name or address"),
        ({"allowed_hosts": ("a:80",)}, "allowed_host is 'a:80', must be a name or address"),
    ],
)
def test_a_bad_setting_is_named_with_its_value(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(GatewayConfigError) as caught:
        GatewayConfig(**settings)
    assert words in str(caught.value)


@pytest.mark.parametrize("host", ["api.example", "10.0.0.1", "[::1]"])
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    assert GatewayConfig(allowed_hosts=(host,)).allowed_hosts == (host,)


def test_a_certificate_belongs_to_its_key(tmp_path: Path) -> None:
    files = AuthorityFiles(tmp_path, "ca")
    first, second = files.pair("first"), files.pair("second")
    check_certificate(first.certificate, first.key, GatewayConfigError)
    with pytest.raises(GatewayConfigError, match="belong together"):
        check_certificate(first.certificate, second.key, GatewayConfigError)
    with pytest.raises(GatewayConfigError, match="belong together"):
        check_certificate(first.key, first.certificate, GatewayConfigError)


def test_a_key_has_no_passphrase(tmp_path: Path) -> None:
    """OpenSSL would ask the terminal for it."""
    pair = Authority().issue("server")
    (tmp_path / "c.pem").write_bytes(pair.chain)
    (tmp_path / "k.pem").write_bytes(pair.key(b"secret"))
    with pytest.raises(GatewayConfigError, match="has a passphrase"):
        check_certificate(tmp_path / "c.pem", tmp_path / "k.pem", GatewayConfigError)
