"""Console of a shop under test, and people who use it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.support.shop import Clock
from tests.support.website import (
    Tokens,
    client_of,
    hidden_fields,
    new_tokens,
    plain_text,
    running_website,
)

from gpt2flow.console.config import ConsoleConfig
from gpt2flow.console.process import new_server, open_site

__all__ = ["RunningConsole", "Tokens", "Visitor", "new_tokens", "plain_text", "running_console"]


@dataclass(frozen=True)
class RunningConsole:
    """Console on a port of this machine.

    Attributes:
        url: Its address.
        tokens: People who may use it.
    """

    url: str
    tokens: Tokens

    @contextmanager
    def visitor(self) -> Iterator["Visitor"]:
        """Yield somebody who has not signed in."""
        with client_of(self.url) as client:
            yield Visitor(client)

    @contextmanager
    def person(self, name: str) -> Iterator["Visitor"]:
        """Yield somebody who has signed in."""
        with self.visitor() as visitor:
            response = visitor.sign_in(self.tokens.secrets[name])
            assert response.status_code == 303, response.text
            yield visitor


@dataclass(frozen=True)
class Visitor:
    """Somebody with a browser that runs no scripts.

    Attributes:
        client: Client that keeps the cookies.
    """

    client: httpx.Client

    def sign_in(self, token: str, **fields: str) -> httpx.Response:
        """Send the form of the sign-in."""
        return self.client.post("/sign-in", data={"token": token, **fields})

    def read(self, path: str) -> str:
        """Return a page that must be there."""
        response = self.client.get(path)
        assert response.status_code == 200, response.text
        return response.text

    def forms(self, path: str) -> dict[str, dict[str, str]]:
        """Return the hidden fields of a page's forms, by action."""
        return hidden_fields(self.read(path))

    def submit(
        self, path: str, decision: str, form: Mapping[str, str] | None = None, **fields: str
    ) -> httpx.Response:
        """Send a form of a case's page.

        Args:
            path: Path of the case.
            decision: Name of the decision.
            form: Hidden fields of a page that was read before; None reads it now.
            fields: What is typed.
        """
        action = f"{path}/{decision}"
        hidden = self.forms(path)[action] if form is None else form
        return self.client.post(action, data={**hidden, **fields})


@contextmanager
def running_console(
    database: Path | str, tokens: Tokens, clock: Clock, **settings: Any
) -> Iterator[RunningConsole]:
    """Serve a shop's cases in a thread until the block ends.

    Args:
        database: SQLite file of the shop, or URL of its database.
        tokens: People who may use the console.
        clock: Clock of the shop.
        settings: Further settings of the console.
    """
    config = ConsoleConfig(
        tokens=tokens.path, database=str(database), address="127.0.0.1:0", **settings
    )
    with (
        open_site(config, clock) as site,
        running_website(lambda: new_server(site)) as url,
    ):
        yield RunningConsole(url, tokens)
