"""Validation of settings at construction."""

from pathlib import Path
from typing import Any

import pytest

from gpt2flow.server.config.base import parse_address, parse_bytes
from gpt2flow.server.config.settings import EngineConfig, SecurityConfig, ServerConfig
from gpt2flow.server.errors import ConfigError

MODELS = {"m": Path("somewhere")}


@pytest.mark.parametrize(
    "options,message",
    [
        ({"threads": 0}, "threads is 0"),
        ({"max_sequences": 0}, "max_sequences is 0"),
        ({"max_sequences": 5000}, "max_sequences is 5000"),
        ({"kv_cache_memory": 0}, "kv_cache_memory is 0"),
        ({"max_queued": -1}, "max_queued is -1"),
        ({"prefill_chunk": 0}, "prefill_chunk is 0"),
        ({"default_max_new_tokens": 0}, "default_max_new_tokens is 0"),
        ({"max_top_logprobs": -1}, "max_top_logprobs is -1"),
    ],
)
def test_engine_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EngineConfig(**options)


@pytest.mark.parametrize(
    "options,message",
    [
        ({"models": {}}, "no model given"),
        ({"models": {"": Path()}}, "needs a name"),
        ({"port": 70000}, "port is 70000"),
        ({"drain_seconds": -1}, "drain_seconds is -1"),
        ({"drain_seconds": float("nan")}, "drain_seconds is nan"),
    ],
)
def test_server_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ServerConfig(**{"models": MODELS} | options)


@pytest.mark.parametrize(
    "address,expected",
    [
        ("127.0.0.1:50051", ("127.0.0.1", 50051)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_addresses_are_parsed_and_written_back(address: str, expected: tuple[str, int]) -> None:
    host, port = parse_address(address)
    assert (host, port) == expected
    assert ServerConfig(models=MODELS, host=host, port=port).address == address


@pytest.mark.parametrize("address", ["", "host", "host:", ":80", "host:port", "host:-1", "host:²"])
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="not of the form host:port"):
        parse_address(address)


@pytest.mark.parametrize(
    "text,expected",
    [
        ("1000000", 1_000_000),
        ("512MB", 512_000_000),
        ("512 mib", 512 * 2**20),
        ("3KB", 3000),
        ("3KiB", 3072),
        ("1.5GB", 1_500_000_000),
        (" 2GiB ", 2**31),
        ("7B", 7),
    ],
)
def test_memory_sizes_are_parsed(text: str, expected: int) -> None:
    assert parse_bytes("memory", text) == expected


@pytest.mark.parametrize(
    "text", ["", "MB", "-1", "1TB", "1e9", "0x10", "1.MB", "1,5GB", "²", "1 M B"]
)
def test_an_invalid_memory_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_bytes("memory", text)
    assert str(caught.value) == (
        f"memory is {text!r}, must be a number of bytes or of KB, MB, GB, KiB, MiB or GiB"
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_plain_text_is_allowed_on_loopback(host: str) -> None:
    assert ServerConfig(models=MODELS, host=host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example.com", "shop"])  # noqa: S104
def test_plain_text_beyond_loopback_must_be_explicit(host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig(models=MODELS, host=host, security=SecurityConfig(tokens=Path("tokens")))
    assert str(caught.value) == (
        f"plain text on {host!r} can be read and changed by others: give --tls-certificate and "
        "--tls-key, listen on 127.0.0.1, or say --insecure"
    )
    tls = SecurityConfig(tls_certificate=Path("c"), tls_key=Path("k"))
    for security in (SecurityConfig(insecure=True), tls):
        assert ServerConfig(models=MODELS, host=host, security=security).host == host


def test_plain_text_and_tls_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="--insecure is plain text, --tls-certificate is TLS"):
        SecurityConfig(tls_certificate=Path("c"), tls_key=Path("k"), insecure=True)
