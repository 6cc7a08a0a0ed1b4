"""Console of a shop under test, and people who use it."""

import asyncio
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
from tests.support.shop import Clock
from tests.support.waiting import SECONDS

from gpt2flow.agent.net.addresses import bind
from gpt2flow.console.config import ConsoleConfig
from gpt2flow.console.process import new_server, open_site
from gpt2flow.files.tokens import make_token

# Entries beside the name and the token of each person.
RIGHTS = {"ben": 'may = "approve"\n', "eva": 'may = "approve"\nup_to = "100.00"\n'}
RIGHTS |= {"hal": 'may = "handle"\n', "bot": ""}


@dataclass(frozen=True)
class Tokens:
    """File of tokens, with the token of everybody in it.

    Attributes:
        path: Path of the file.
        secrets: Token by name.
        entries: Entry by name.
    """

    path: Path
    secrets: dict[str, str] = field(default_factory=dict)
    entries: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, more: str) -> None:
        """Add somebody to the file."""
        self.secrets[name], entry = make_token(name, ValueError)
        self.entries[name] = entry + more
        self.write()

    def remove(self, name: str) -> None:
        """Remove somebody from the file."""
        del self.entries[name]
        self.write()

    def write(self) -> None:
        """Write the file."""
        self.path.write_text("\n".join(self.entries.values()), encoding="utf-8")


def new_tokens(path: Path) -> Tokens:
    """Return a file with all of `RIGHTS`."""
    tokens = Tokens(path)
    for name, more in RIGHTS.items():
        tokens.add(name, more)
    return tokens


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
        with httpx.Client(base_url=self.url, timeout=SECONDS, trust_env=False) as client:
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
    ready: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve(bound: socket.socket) -> None:
        server, stop = new_server(site), asyncio.Event()
        ready.set_result((await server.start(bound), asyncio.get_running_loop(), stop))
        await stop.wait()
        await server.stop()

    with (
        open_site(config, clock) as site,
        bind(config.address, "address") as bound,
    ):
        thread = threading.Thread(target=lambda: asyncio.run(serve(bound)), daemon=True)
        thread.start()
        port, loop, stop = ready.result(SECONDS)
        try:
            yield RunningConsole(f"http://127.0.0.1:{port}", tokens)
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(SECONDS)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, dict[str, str]] = {}
        self._action = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect forms and hidden fields."""
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._action = given.get("action", "")
            self.fields[self._action] = {}
        elif tag == "input" and given.get("type") == "hidden":
            self.fields[self._action][given["name"]] = given["value"]


def hidden_fields(page: str) -> dict[str, dict[str, str]]:
    """Return the hidden fields of a page's forms, by action."""
    parser = _Forms()
    parser.feed(page)
    return parser.fields


def plain_text(page: str) -> str:
    """Return the text of a page, without tags and line breaks."""
    without_tags = re.sub(r"<[^>]*>", " ", page)
    return " ".join(without_tags.split())
