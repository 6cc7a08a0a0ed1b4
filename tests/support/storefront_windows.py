"""Windows of people at a storefront, and what they do there."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.support.browser import Screen, screen
from tests.support.http_endpoint import HeldModel, Served, running_endpoint
from tests.support.shop import CODE, Clock, Shop
from tests.support.storefront import RunningStorefront, running_storefront
from tests.support.website import Tokens

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.http.config import HttpConfig


class Windows:
    """Windows of people at one storefront."""

    def __init__(self, browser: Browser, storefront: RunningStorefront, stack: ExitStack) -> None:
        self._browser = browser
        self._storefront = storefront
        self._stack = stack

    def open(self, **settings: Any) -> Screen:
        """Open the window of a visitor."""
        opened = self._stack.enter_context(screen(self._browser, self._storefront.url, **settings))
        opened.page.goto("/")
        return opened

    def register(self, contact: str = "ann@example.com", **settings: Any) -> Screen:
        """Open the window of somebody who registers."""
        opened = self.open(**settings)
        self.ask_for_code(opened, contact)
        opened.page.locator("#code").fill(CODE)
        opened.page.locator("form[action='/code'] button").click()
        expect(opened.page.get_by_role("status")).to_contain_text("Ann")
        return opened

    def ask_for_code(self, opened: Screen, contact: str) -> None:
        """Send the form of the registration."""
        opened.page.goto("/register")
        opened.page.locator("#name").fill("Ann")
        opened.page.locator("#contact").fill(contact)
        opened.page.locator("main button").click()
        expect(opened.page.locator("#code")).to_be_visible()

    def operator(self, name: str, **settings: Any) -> Screen:
        """Open the window of somebody of the back office."""
        opened = self.open(**settings)
        opened.page.goto("/office")
        opened.page.locator("#token").fill(self._storefront.tokens.secrets[name])
        opened.page.locator("main button").click()
        expect(opened.page.locator(".office .who")).to_have_text(name)
        return opened


@pytest.fixture
def served(database: Path) -> Iterator[Served]:
    """Agent of the shop, on a scripted model."""
    held, clock = threading.Event(), Clock()
    model = HeldModel(lambda _prompt: held.is_set())
    config = AgentConfig(database=str(database))
    # Playwright runs a loop in this thread, which DBOS does not accept.
    with ThreadPoolExecutor(1) as pool:
        agent = pool.submit(lambda: Agent(config, model=model, clock=clock)).result()
        yield Served(agent, model, str(database), held, clock)
        pool.submit(agent.close).result()


@pytest.fixture
def windows(
    browser: Browser, served: Served, shop: Shop, database: Path, tokens: Tokens
) -> Iterator[Windows]:
    """Windows at a storefront with a chat box."""
    with running_endpoint(served, HttpConfig()) as endpoint, ExitStack() as stack:
        settings: dict[str, Any] = {"agent": f"http://127.0.0.1:{endpoint.port}"}
        storefront = stack.enter_context(
            running_storefront(database, tokens, shop.clock, **settings)
        )
        yield Windows(browser, storefront, stack)


def press(page: Page, name: str) -> None:
    """Press the only button of a name."""
    page.get_by_role("button", name=name, exact=True).click()


def fill(page: Page, name: str, text: str) -> None:
    """Fill in the only text field of a name."""
    page.get_by_role("textbox", name=name, exact=True).fill(text)


def send(page: Page, form: str, role: Literal["status", "alert"] = "status") -> None:
    """Press the button of a form, and wait for its notice."""
    page.locator(f"{form} button").click()
    expect(page.get_by_role(role)).to_be_visible()


def session_of(window: Screen) -> str:
    """Return the id of a customer's conversation."""
    cookies = window.page.context.cookies()
    return next(each["value"] for each in cookies if each["name"] == "gpt2flow-shop")


def buy(page: Page, *products: str) -> None:
    """Order some products, by their form's elements alone, in any language."""
    for product in products:
        page.goto(f"/products/{product}")
        send(page, "main")
    page.goto("/checkout")
    page.locator("#address").fill("5 Oak Rd")
    send(page, "form[action='/checkout']")
