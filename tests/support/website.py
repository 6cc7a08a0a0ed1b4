"""Websites under test: served in a thread, visited without scripts."""

import asyncio
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import httpx
from tests.support.certificates import AuthorityFiles
from tests.support.waiting import SECONDS

from gpt2flow.agent.net.addresses import bind
from gpt2flow.files.tokens import make_token
from gpt2flow.web.asgi import HttpServer

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


@contextmanager
def client_of(url: str) -> Iterator[httpx.Client]:
    """Open a browser that runs no scripts and follows no redirects."""
    with httpx.Client(base_url=url, timeout=SECONDS, trust_env=False) as client:
        yield client


@dataclass(frozen=True)
class TlsFiles:
    """Certificate of a website, and the authority that its visitors trust.

    Attributes:
        ca: Certificate of the authority.
        settings: Settings of the website.
    """

    ca: Path
    settings: dict[str, Path]

    @contextmanager
    def client(self, url: str) -> Iterator[httpx.Client]:
        """Open a browser that trusts the website."""
        context = ssl.create_default_context(cafile=self.ca)
        address = url.replace("http://", "https://")
        with httpx.Client(base_url=address, verify=context, trust_env=False) as client:
            yield client


def new_tls_files(folder: Path) -> TlsFiles:
    """Return the files of a website with TLS."""
    authority = AuthorityFiles(folder, "ca")
    pair = authority.pair("website")
    settings = {"https_certificate": pair.certificate, "https_key": pair.key}
    return TlsFiles(authority.ca, settings)


@contextmanager
def running_website(new_server: Callable[[], HttpServer]) -> Iterator[str]:
    """Serve a website in a thread, and yield its address.

    Args:
        new_server: Function that returns the server, in the thread's loop.
    """
    ready: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve(bound: socket.socket) -> None:
        server, stop = new_server(), asyncio.Event()
        ready.set_result((await server.start(bound), asyncio.get_running_loop(), stop))
        await stop.wait()
        await server.stop()

    with bind("127.0.0.1:0", "address") as bound:
        thread = threading.Thread(target=lambda: asyncio.run(serve(bound)), daemon=True)
        thread.start()
        port, loop, stop = ready.result(SECONDS)
        try:
            yield f"http://127.0.0.1:{port}"
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
