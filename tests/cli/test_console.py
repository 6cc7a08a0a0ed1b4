"""Command `gpt2flow console` as a process."""

from pathlib import Path

import pytest
from tests.support.command_line import gpt2flow
from tests.support.console import new_tokens
from tests.support.http_process import endpoint_process

from gpt2flow.agent.shop import Database, database_url


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Folder with a shop and a file of tokens."""
    Database.open(database_url(str(tmp_path / "shop.sqlite"))).close()
    new_tokens(tmp_path / "tokens.toml")
    return tmp_path


def test_it_serves_until_sigterm(shop: Path) -> None:
    command = ["gpt2flow.cli", "console", "--tokens", str(shop / "tokens.toml")]
    command += ["--database", str(shop / "shop.sqlite"), "--address", "127.0.0.1:0"]
    command += ["--ready-file", str(shop / "port")]
    with endpoint_process(shop, *command) as process:
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
    given = {"--tokens": str(shop / "tokens.toml"), "--database": str(shop / "shop.sqlite")}
    given |= {"--address": "127.0.0.1:0"}
    given |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    if not arguments:
        del given["--tokens"]
    code, _, errors = gpt2flow("console", *[part for pair in given.items() for part in pair])
    assert code == 2
    assert words in errors
    assert len(errors.splitlines()) == 1
