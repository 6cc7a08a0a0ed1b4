"""Screens of the demo's shops, for an agent in a browser."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpt2flow.agent.hands.album import PicturedStep, read_album
from gpt2flow.cli.processes import storefront
from gpt2flow.files.tokens import make_token

_NAME: Final = "demo-agent"
"""Name of the agent in the shop's back office, where `agent` itself is reserved."""


@dataclass(frozen=True)
class Screens:
    """Screens of the demo's shops.

    Attributes:
        pictures: Folder of pictures, with a folder for each shop.
        browser: Path of Chromium.
    """

    pictures: Path
    browser: str

    @contextmanager
    def open(self, database: Path, options: Sequence[str]) -> Iterator[list[str]]:
        """Serve the screens of a shop until the block ends.

        Args:
            database: SQLite file of the shop; tokens and logs are written beside it.
            options: Further options of the storefront.

        Yields:
            Options of the agent.

        Raises:
            CommandError: The storefront ended or was not ready within 60 seconds.
        """
        tokens, token = database.with_name("tokens.toml"), database.with_name("agent.token")
        secret, entry = make_token(_NAME, ValueError, may="handle")
        for path, text in ((tokens, entry), (token, secret)):
            path.touch(mode=0o600)
            path.write_text(text, encoding="utf-8")
        with storefront(database, tokens, database.parent, options) as url:
            yield [
                *("--hands", "browser", "--browser", self.browser),
                *("--shop", url, "--shop-token-file", str(token)),
                *("--pictures", str(self.folder(database))),
            ]

    def folder(self, database: Path) -> Path:
        """Return the folder with the pictures of a shop."""
        return self.pictures / database.stem

    def new_steps(
        self, database: Path, known: Sequence[Sequence[PicturedStep]]
    ) -> list[PicturedStep]:
        """Return the steps that were taken after the known ones.

        Raises:
            InputError: The list of pictures cannot be read.
        """
        return read_album(self.folder(database))[sum(map(len, known)) :]
