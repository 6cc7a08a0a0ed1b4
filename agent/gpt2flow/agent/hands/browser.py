"""Hands in Chromium, which a thread of its own drives."""

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from playwright.sync_api import (
    Browser,
    BrowserContext,
    Error,
    Playwright,
    ViewportSize,
    sync_playwright,
)

from gpt2flow.agent.config import BrowserConfig, Clock
from gpt2flow.agent.errors import InputError
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.hands.album import Album
from gpt2flow.agent.hands.errors import ScreenStopped
from gpt2flow.agent.hands.ledger import Ledger
from gpt2flow.agent.hands.port import ScreenOutcome, ScreenTask
from gpt2flow.agent.hands.recording import load_screens
from gpt2flow.agent.hands.replay import Replay, Shop
from gpt2flow.agent.hands.screen import Screen
from gpt2flow.agent.net.secrets import read_secret
from gpt2flow.agent.shop import Database
from gpt2flow.agent.wording import Language

# Chromium reaches nothing but the shop: no updates, no reports.
ARGUMENTS: Final = (
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-gpu", "--disable-quic", "--no-first-run"),
)
LOCALES: Final[dict[Language, str]] = {"en": "en-GB", "zh": "zh-CN"}
_VIEWPORT: Final[ViewportSize] = {"width": 1280, "height": 900}
# Browsers that an action may need, each after the one before has died.
_BROWSERS: Final = 3
_Result = TypeVar("_Result")


def find_chromium(path: str | None = None) -> str:
    """Return the path of Chromium.

    Args:
        path: Path that was given; None looks in `CHROMIUM` and `PATH`.

    Raises:
        InputError: There is none.
    """
    given = path or os.environ.get("CHROMIUM") or "chromium"
    found = shutil.which(given)
    if found is None:
        raise InputError(f"browser is {given!r}: no such program; install Debian's chromium")
    return found


class BrowserHands:
    """Hands that work on the shop's screens in Chromium.

    Actions of all conversations are carried out one after the other.

    Args:
        config: Shop and browser.
        book: Loaded flows.
        flows: Folder of the flows, which has the recordings; None selects the built-in ones.
        database: Shop database, which keeps what is under way.
        clock: Source of the current time.

    Raises:
        InputError: A recording is invalid, the token cannot be read, or there is no Chromium.
    """

    def __init__(
        self,
        config: BrowserConfig,
        book: FlowBook,
        flows: Path | None,
        *,
        database: Database,
        clock: Clock,
    ) -> None:
        self._config = config
        self._book = book
        self._screens = load_screens(book, flows)
        self._executable = find_chromium(config.executable)
        _read_token(config)
        self._ledger = Ledger(database, clock, book.secret_slots)
        album = Album(config.pictures) if config.pictures is not None else None
        self._shop = Shop(lambda: _read_token(config), config.settle_seconds, clock, album)
        # Playwright's objects belong to the thread that made them.
        self._thread = ThreadPoolExecutor(1, "browser")
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None
        self._contexts = dict[Language, BrowserContext]()
        # The first customer need not wait for its start; if it fails, the first action says so.
        self._thread.submit(self._launch)

    def outcomes(self, action: str, language: Language) -> frozenset[str]:
        """Return the recorded outcomes of an action; none without a recording."""
        recording = self._screens[language].actions.get(action)
        return frozenset(recording.outcomes if recording is not None else ())

    def carry_out(self, task: ScreenTask) -> ScreenOutcome:
        """Carry an action out once per key, and keep its outcome.

        Raises:
            ScreenStopped: The screens are not as expected; a person has to look.
            DatabaseError: The database failed.
        """
        return self._in_thread(lambda: self._carry_out(task))

    def close(self) -> None:
        """Close the browser."""
        self._in_thread(self._close)
        self._thread.shutdown()

    def _in_thread(self, function: Callable[[], _Result]) -> _Result:
        return self._thread.submit(function).result()

    def _carry_out(self, task: ScreenTask) -> ScreenOutcome:
        """Carry an action out, and restart a browser that dies."""
        began = time.monotonic()
        if task.action not in self._screens[task.language].actions:
            raise ScreenStopped(f"{task.action}: its recording is there no more")
        for _ in range(_BROWSERS):
            try:
                return self._replay(task, began)
            except Error as error:
                # What was pressed, if anything, is read by the next replay.
                reason = error.message.splitlines()[0]
                self._close()
        raise ScreenStopped(f"{task.action}: the browser fails: {reason}")

    def _replay(self, task: ScreenTask, began: float) -> ScreenOutcome:
        page = self._context(task.language).new_page()
        screen = Screen(page, self._config.page_seconds, self._config.element_seconds)
        screens, names = self._screens[task.language], self._names(task)
        replay = Replay(
            screen, screens, task, names, ledger=self._ledger, shop=self._shop, began=began
        )
        try:
            return replay.carry_out()
        finally:
            page.close()

    def _names(self, task: ScreenTask) -> dict[str, str]:
        """Return the names of arguments that are values of a list."""
        slots = self._book.slots
        return {
            f"{slot}_name": slots[slot].names[str(value)][task.language]
            for slot, value in task.used.items()
            if str(value) in slots[slot].names
        }

    def _context(self, language: Language) -> BrowserContext:
        """Return the context of a language, whose session stays signed in."""
        browser = self._launch()
        if language not in self._contexts:
            self._contexts[language] = browser.new_context(
                base_url=self._config.url, locale=LOCALES[language], viewport=_VIEWPORT
            )
        return self._contexts[language]

    def _launch(self) -> Browser:
        """Return the browser, which is started if there is none."""
        if self._browser is None:
            self._playwright = self._playwright or sync_playwright().start()
            sandbox = [] if os.geteuid() else ["--no-sandbox"]
            self._browser = self._playwright.chromium.launch(
                executable_path=self._executable, args=[*ARGUMENTS, *sandbox]
            )
        return self._browser

    def _close(self) -> None:
        self._contexts.clear()
        browser, self._browser = self._browser, None
        try:
            if browser is not None:
                browser.close()
        except Error:
            pass  # It is gone already.
        finally:
            if self._playwright is not None:
                self._playwright.stop()
                self._playwright = None


def _read_token(config: BrowserConfig) -> str:
    return read_secret("--shop-token-file", config.token_file).strip()
