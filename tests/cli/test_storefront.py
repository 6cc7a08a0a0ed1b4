"""Command `gpt2flow storefront` as a process."""

from pathlib import Path

import pytest
from tests.support.http_process import endpoint_process
from tests.support.site_command import flat, refusal_of, shop, site_options

__all__ = ["shop"]


def test_it_serves_until_sigterm_and_warns_of_changed_pages(shop: Path) -> None:
    options = flat(site_options(shop) | {"--ready-file": str(shop / "port")})
    options += ["--disturb", "renamed-label"]
    with endpoint_process(shop, "gpt2flow.cli", "storefront", *options) as process:
        assert process.client.get("/health").text == "ok\n"
        assert "electric kettle" in process.client.get("/").text
        [warning] = process.events("pages_disturbed")
        assert warning["ways"] == ["renamed-label"]
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
        (["--agent", "http://shop.example"], "must be https except on this machine"),
        (["--agent", "x"], "agent is 'x'"),
        (["--agent-secret-file", "s"], "agent_secret_file needs agent"),
        (["--chat-seconds", "0"], "chat_seconds is 0"),
        (["--console", "x"], "console is 'x'"),
        (["--payments", "ftp://x"], "must be an https URL"),
        (["--disturb", "fire"], "disturb is 'fire', must be one of renamed-label"),
        (["--disturb-seconds", "-1"], "disturb_seconds is -1"),
        (["--session-hours", "0"], "session_hours is 0"),
        (["--https-key", "k.pem"], "need each other"),
    ],
)
def test_a_bad_argument_is_named(shop: Path, arguments: list[str], words: str) -> None:
    assert words in refusal_of("storefront", shop, arguments)
