"""Command `gpt2flow console` as a process."""

from pathlib import Path

import pytest
from tests.support.http_process import endpoint_process
from tests.support.site_command import flat, refusal_of, shop, site_options

__all__ = ["shop"]


def test_it_serves_until_sigterm(shop: Path) -> None:
    options = flat(site_options(shop) | {"--ready-file": str(shop / "port")})
    with endpoint_process(shop, "gpt2flow.cli", "console", *options) as process:
        assert process.client.get("/health").text == "ok\n"
        assert process.client.get("/").status_code == 303
        process.terminate()
        assert process.wait() == 0
        assert process.events("stopped")


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "--tokens"),
        (["--tokens", "nowhere.toml"], "nowhere.toml"),
        (["--database", "nowhere.sqlite"], "there is no such file"),
        (["--address", "0.0.0.0:0"], "give --https-certificate and --https-key"),
        (["--address", "x"], "address is 'x'"),
        (["--metrics", "x"], "metrics is 'x'"),
        (["--reports", "nowhere"], "there is no such folder"),
        (["--session-hours", "0"], "session_hours is 0"),
        (["--https-key", "k.pem"], "need each other"),
    ],
)
def test_a_bad_argument_is_named(shop: Path, arguments: list[str], words: str) -> None:
    assert words in refusal_of("console", shop, arguments)
