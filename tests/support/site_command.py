"""Commands that serve websites, as processes with wrong arguments."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support.command_line import gpt2flow
from tests.support.website import new_tokens

from gpt2flow.agent.shop import Database, database_url


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Folder with a shop and a file of tokens."""
    Database.open(database_url(str(tmp_path / "shop.sqlite"))).close()
    new_tokens(tmp_path / "tokens.toml")
    return tmp_path


def site_options(shop: Path) -> dict[str, str]:
    """Return the options that every website needs, by name."""
    given = {"--tokens": str(shop / "tokens.toml"), "--database": str(shop / "shop.sqlite")}
    return given | {"--address": "127.0.0.1:0"}


def flat(options: dict[str, str]) -> list[str]:
    """Return options as arguments."""
    return [part for pair in options.items() for part in pair]


def refusal_of(command: str, shop: Path, arguments: Sequence[str]) -> str:
    """Return the one line with which a command refuses arguments.

    Args:
        command: Name of the command.
        shop: Folder of the shop.
        arguments: Options in place of the right ones; none leaves out the tokens.
    """
    given = site_options(shop) | dict(zip(arguments[::2], arguments[1::2], strict=True))
    if not arguments:
        del given["--tokens"]
    code, _, errors = gpt2flow(command, *flat(given))
    assert code == 2
    assert len(errors.splitlines()) == 1
    return errors
