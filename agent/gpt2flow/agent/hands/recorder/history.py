"""History of a window: pages that no press led to."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.async_api import CDPSession, Error, Frame, Page

# How Chromium names the ways to a page that no press leads to.
_BY_ADDRESS: Final = {"address_bar", "auto_bookmark", "generated", "keyword", "typed"}
_ATTEMPTS: Final = 20
_RETRY_SECONDS: Final = 0.05


class WindowHistory:
    """History of one window.

    Args:
        page: Page of the window.
        session: DevTools session of the page.
        arrive: Function that takes the address of each page and, if the person opened it by that
            or by going back or forward, its path with its query.
    """

    def __init__(
        self,
        page: Page,
        session: CDPSession,
        arrive: Callable[[str, Awaitable[str | None]], None],
    ) -> None:
        self._page = page
        self._session = session
        self._arrive = arrive
        self._entries = set[int]()
        self._index = 0

    async def start(self) -> None:
        """Report pages from now on."""
        await self._opened(self._page.url)
        self._page.on("framenavigated", self._on_navigation)

    def _on_navigation(self, frame: Frame) -> None:
        if frame is self._page.main_frame:
            # Asked for at once, since the person may go on soon.
            self._arrive(frame.url, asyncio.ensure_future(self._opened(frame.url)))

    async def _opened(self, url: str) -> str | None:
        """Return the path of a page that no press led to."""
        history = await self._history()
        if history is None:
            return None
        index = history["currentIndex"]
        entry = history["entries"][index]
        if entry["url"] != url:
            # The person has gone on already, and the next page is the one to look at.
            self._index = -1
            return None
        is_new, has_moved = entry["id"] not in self._entries, index != self._index
        self._entries.add(entry["id"])
        self._index = index
        if is_new and entry["transitionType"] in _BY_ADDRESS:
            return path_of(entry["userTypedURL"])
        return path_of(url) if has_moved and not is_new else None

    async def _history(self) -> dict[str, Any] | None:
        """Return the history; None if the window is gone."""
        for _ in range(_ATTEMPTS):
            try:
                return await self._session.send("Page.getNavigationHistory")
            except Error:
                # Chromium refuses while it replaces one page by the next.
                await asyncio.sleep(_RETRY_SECONDS)
        return None


def path_of(url: str) -> str:
    """Return the path of an address, with its query."""
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def origin_of(url: str) -> str:
    """Return the scheme, host and port of an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
