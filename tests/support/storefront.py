"""Storefront of a shop under test, and people who use it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from tests.support.shop import CODE
from tests.support.website import Tokens, client_of, hidden_fields, running_website

from gpt2flow.storefront.config import StorefrontConfig
from gpt2flow.storefront.process import new_server, open_site


@dataclass(frozen=True)
class RunningStorefront:
    """Storefront on a port of this machine.

    Attributes:
        url: Its address.
        tokens: People of its back office.
    """

    url: str
    tokens: Tokens

    @contextmanager
    def shopper(self) -> Iterator["Shopper"]:
        """Yield somebody with a new browser."""
        with client_of(self.url) as client:
            yield Shopper(client)

    @contextmanager
    def operator(self, name: str, conversation: str | None = None) -> Iterator["Shopper"]:
        """Yield somebody who has signed in to the back office.

        Args:
            name: Name of the person.
            conversation: Id of the conversation that the person serves.
        """
        with self.shopper() as shopper:
            response = shopper.client.post(
                "/office/sign-in", data={"token": self.tokens.secrets[name]}
            )
            assert response.status_code == 303, response.text
            if conversation is not None:
                served = shopper.submit("/office/serve", conversation=conversation)
                assert served.headers["location"] == "/account", served.text
            yield shopper


@dataclass(frozen=True)
class Shopper:
    """Somebody with a browser that runs no scripts.

    Attributes:
        client: Client that keeps the cookies.
    """

    client: httpx.Client

    def read(self, path: str) -> str:
        """Return a page that must be there, after redirects."""
        response = self.client.get(path, follow_redirects=True)
        assert response.status_code == 200, response.text
        return response.text

    def forms(self, path: str) -> dict[str, dict[str, str]]:
        """Return the hidden fields of a page's forms, by action."""
        return hidden_fields(self.read(path))

    def submit(self, page: str, action: str | None = None, **typed: str) -> httpx.Response:
        """Send a form of a page, and return the answer itself.

        Args:
            page: Path of the page.
            action: Path that takes the form; None is that of the page.
            typed: What is typed.
        """
        target = action or page
        return self.client.post(target, data={**self.forms(page)[target], **typed})

    def do(self, page: str, action: str | None = None, **typed: str) -> str:
        """Send a form of a page, and return the page that follows."""
        response = self.submit(page, action, **typed)
        assert response.status_code == 303, response.text
        return self.read(response.headers["location"])

    def register(self, name: str = "Ann", contact: str = "ann@example.com") -> None:
        """Register, and log in with the code of the test."""
        self.do("/register", name=name, contact=contact)
        assert f"Hello, {name}" in self.do("/code", code=CODE)

    def order(self, *skus: str, address: str = "5 Oak Rd") -> str:
        """Order some products, and return the number of the order."""
        for sku in skus:
            self.do(f"/products/{sku}", quantity="1")
        self.do("/checkout", address=address)
        response = self.submit("/checkout/review", "/checkout/confirm")
        path: str = response.headers["location"]
        assert path.startswith("/orders/SO-"), path
        return path.removeprefix("/orders/")


@contextmanager
def running_storefront(
    database: Path | str, tokens: Tokens, clock: Callable[[], datetime], **settings: Any
) -> Iterator[RunningStorefront]:
    """Serve a shop in a thread, whose codes are `CODE`.

    Args:
        database: SQLite file of the shop, or URL of its database.
        tokens: People of the back office.
        clock: Clock of the shop.
        settings: Further settings of the storefront.
    """
    config = StorefrontConfig(
        tokens=tokens.path, database=str(database), address="127.0.0.1:0", **settings
    )
    with (
        open_site(config, clock, lambda: CODE) as site,
        running_website(lambda: new_server(site)) as url,
    ):
        yield RunningStorefront(url, tokens)
