"""Command `gpt2flow storefront` as a process."""

from pathlib import Path

import pytest
from tests.support.command_line import gpt2flow
from tests.support.http_process import endpoint_process
from tests.support.website import new_tokens

from gpt2flow.agent.shop import Database, database_url


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Folder with a shop and a file of tokens."""
    Database.open(database_url(str(tmp_path / "shop.sqlite"))).close()
    new_tokens(tmp_path / "tokens.toml")
    return tmp_path


def test_it_serves_until_sigterm_and_warns_of_changed_pages(shop: Path) -> None:
    command = ["gpt2flow.cli", "storefront", "--tokens", str(shop / "tokens.toml")]
    command += ["--database", str(shop / "shop.sqlite"), "--address", "127.0.0.1:0"]
    command += ["--ready-file", str(shop / "port"), "--disturb", "renamed-label"]
    with endpoint_process(shop, *command) as process:
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
    given = {"--tokens": str(shop / "tokens.toml"), "--database": str(shop / "shop.sqlite")}
    given |= {"--address": "127.0.0.1:0"}
    given |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    if not arguments:
        del given["--tokens"]
    code, _, errors = gpt2flow("storefront", *[part for pair in given.items() for part in pair])
    assert code == 2
    assert words in errors
    assert len(errors.splitlines()) == 1
