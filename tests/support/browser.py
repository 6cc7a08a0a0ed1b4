"""Chromium of the machine, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from tests.support.project import PROJECT

# Pictures of the screens, to be looked at.
PICTURES: Final = PROJECT / "build" / "screens"
# The browser reaches nothing but the console: no updates, no reports.
_ARGUMENTS: Final = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
_MILLISECONDS: Final = 30_000
_SERIOUS: Final = ("serious", "critical")
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium until the block ends."""
    path = chromium_path()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium of a module's tests."""
    with chromium() as running:
        yield running


def chromium_path() -> str:
    """Return the path of Chromium.

    Without one, the test is skipped, or fails with CI=true.
    """
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        _skip("no chromium on this machine; as root: make chromium")
    return path


def _skip(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass
class Screen:
    """Window of one person.

    Attributes:
        page: Page that it shows.
        problems: Errors of scripts, and what the page's policy refused.
    """

    page: Page
    problems: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Check that the page fits, is accessible, and had no error."""
        assert self.problems == []
        assert not self.page.evaluate(
            "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        ), "the page scrolls sideways"
        violations = Axe().run(self.page).response["violations"]
        found = [
            (each["id"], each["nodes"][0]["html"])
            for each in violations
            if each["impact"] in _SERIOUS
        ]
        assert found == []

    def picture(self, name: str) -> Path:
        """Save a picture of the whole page, and return its path."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        path = PICTURES / f"{name}.png"
        self.page.screenshot(path=path, full_page=True)
        return path


@contextmanager
def screen(browser: Browser, url: str, **settings: Any) -> Iterator[Screen]:
    """Open a window until the block ends.

    Args:
        browser: Browser.
        url: Address that paths are relative to.
        settings: Settings of the window, such as its size, language or colour scheme.
    """
    given = {"viewport": WIDE, "locale": "en-GB"} | settings
    context: BrowserContext = browser.new_context(base_url=url, **given)
    context.set_default_timeout(_MILLISECONDS)
    page = context.new_page()
    opened = Screen(page)
    page.on("pageerror", lambda error: opened.problems.append(str(error)))
    page.on(
        "console",
        lambda message: opened.problems.append(message.text) if message.type == "error" else None,
    )
    try:
        yield opened
    finally:
        context.close()
