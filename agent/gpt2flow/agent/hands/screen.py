"""One page of the browser, worked on by role and name."""

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final, TypeVar
from urllib.parse import urlsplit

from playwright.sync_api import Error, Locator, Page
from playwright.sync_api import TimeoutError as BrowserTimeout

from gpt2flow.agent.hands.errors import SlowPageError, UnexpectedPageError
from gpt2flow.agent.hands.recording import Element, ScreenStep
from gpt2flow.agent.hands.templates import filled, filled_path, find_in_lines, one_line

# Fields that pictures do not show, and conversations, in which customers write their codes.
_COVERED: Final = "input[type=password], input[autocomplete=one-time-code], [role=log]"
# What a page says about what was done.
MESSAGES: Final = "[role=status], [role=alert]"
# Whether a press makes the browser read a page.
_LEADS_AWAY: Final = """element => {
  const link = element.closest("a[href]");
  if (link) return !link.getAttribute("href").startsWith("#");
  return Boolean(element.form) && ["submit", "image"].includes(element.type);
}"""
# Labels of the fields that keep the form of a button from being sent.
_UNFILLED: Final = """element => element.form && !element.form.noValidate
  ? [...element.form.elements].filter(each => each.willValidate && !each.checkValidity())
      .map(each => each.labels?.[0]?.innerText || each.getAttribute("aria-label") || each.name)
  : []"""
_SHOWN: Final = """element => element.tagName === "SELECT"
  ? element.selectedOptions[0]?.innerText ?? "" : element.value"""
# Begins what Chromium says of a page that it could not read.
_NETWORK: Final = "net::"
# Line of a field, up to its value.
_FIELD: Final = re.compile(
    r"""\s*- '?(?:textbox|searchbox|spinbutton|combobox) "(?:[^"\\]|\\.)*["]"""
)
_MILLISECONDS: Final = 1000
_Result = TypeVar("_Result")


class Screen:
    """Page of a browser, and what was filled in on it.

    Args:
        page: Page.
        page_seconds: Longest wait for a page.
        element_seconds: Longest wait for an element of a page that is there.
    """

    def __init__(self, page: Page, page_seconds: float, element_seconds: float) -> None:
        self._page = page
        self._page_milliseconds = page_seconds * _MILLISECONDS
        self._element_milliseconds = element_seconds * _MILLISECONDS
        self._filled: list[tuple[Locator, str, str]] = []
        page.set_default_timeout(self._element_milliseconds)
        page.set_default_navigation_timeout(self._page_milliseconds)

    def follow(self, step: ScreenStep, fields: Mapping[str, str | int]) -> None:
        """Take one step.

        Raises:
            UnexpectedPageError: The page has no such element, or several.
            SlowPageError: The page does not come in time.
        """
        if step.do == "open":
            assert step.path is not None
            self.open(filled_path(step.path, fields))
            return
        locator, name = self._locate(step.element, fields)
        if step.do == "press":
            self._press(locator)
            return
        assert step.text is not None
        text = filled(step.text, fields)
        try:
            if step.do == "fill":
                locator.fill(text)
            else:
                locator.select_option(label=text)
        except Error as error:
            raise UnexpectedPageError(f"{name} does not take the value") from error
        self._filled.append((locator, name, text))

    def open(self, path: str) -> None:
        """Open a page of the shop.

        Raises:
            UnexpectedPageError: The shop answers with an error.
            SlowPageError: The page does not come in time.
        """
        self._filled.clear()
        response = _in_time(lambda: self._page.goto(path, wait_until="domcontentloaded"))
        if response is not None and response.status >= 500:
            raise SlowPageError(f"{path} answers with status {response.status}")

    def press(self, element: Element, fields: Mapping[str, str | int]) -> None:
        """Press an element, and wait for the page that it leads to.

        Raises:
            UnexpectedPageError: The page has no such element, or several.
            SlowPageError: The page does not come in time.
        """
        locator, _ = self._locate(element, fields)
        self._press(locator)

    def check_filled(self, button: Element, fields: Mapping[str, str | int]) -> None:
        """Read back what was filled in, and check for empty fields.

        Raises:
            UnexpectedPageError: A field has another value, or one is not filled in.
        """
        for locator, name, text in self._filled:
            shown = str(locator.evaluate(_SHOWN))
            if one_line(shown) != one_line(text):
                raise UnexpectedPageError(f"{name} does not show what was filled in")
        locator, name = self._locate(button, fields)
        if unfilled := locator.evaluate(_UNFILLED):
            labels = ", ".join(map(one_line, unfilled))
            raise UnexpectedPageError(f"the page asks for {labels} before {name}")

    def check_shows(self, templates: Iterable[str], fields: Mapping[str, str | int]) -> None:
        """Check that the main part of the page shows some texts.

        Raises:
            UnexpectedPageError: One is not there.
        """
        shown = one_line(self._page.get_by_role("main").inner_text())
        for template in templates:
            if not find_in_lines(template, [shown], fields):
                raise UnexpectedPageError(f"{self.path} does not show {filled(template, fields)!r}")

    def has(self, element: Element) -> bool:
        """Return whether the page has an element."""
        return self._page.get_by_role(element.role, name=element.name, exact=True).count() > 0

    def messages(self) -> list[str]:
        """Return what the page says in its status and alert regions."""
        regions = self._page.locator(MESSAGES).all_inner_texts()
        return [text for each in regions if (text := one_line(each))]

    def read(self) -> str:
        """Return path and main part of the page, one element a line.

        Messages and the values of fields are left out: a refusal may keep what was typed.
        """
        shown = self._page.get_by_role("main").aria_snapshot()
        lines = [_without_value(line) for line in shown.splitlines() if not _is_message(line)]
        return "\n".join([self.path, *lines])

    @property
    def path(self) -> str:
        """Path of the page."""
        return urlsplit(self._page.url).path

    def picture(self) -> bytes | None:
        """Return a picture without secrets; None without a page."""
        try:
            covered = [self._page.locator(_COVERED)]
            return self._page.screenshot(full_page=True, mask=covered)
        except Error:
            return None

    def _locate(self, element: Element, fields: Mapping[str, str | int]) -> tuple[Locator, str]:
        """Return the only element of a name, and its name in messages."""
        wanted = filled(element.name, fields)
        locator = self._page.get_by_role(element.role, name=wanted, exact=True)
        name = f"{element.role} {wanted!r}"
        try:
            locator.first.wait_for(state="visible")
        except BrowserTimeout as error:
            raise UnexpectedPageError(f"{self.path} has no {name}") from error
        if (count := locator.count()) != 1:
            raise UnexpectedPageError(f"{self.path} has {count} elements {name}")
        return locator, name

    def _press(self, locator: Locator) -> None:
        leads_away = locator.evaluate(_LEADS_AWAY)
        navigation: AbstractContextManager[object] = nullcontext()
        if leads_away:
            navigation = self._page.expect_navigation(wait_until="domcontentloaded")

        def press() -> None:
            with navigation:
                locator.click(no_wait_after=True)

        _in_time(press)
        if leads_away:
            self._filled.clear()


def _is_message(line: str) -> bool:
    return line.strip().startswith(("- status", "- alert"))


def _without_value(line: str) -> str:
    """Return a snapshot's line without a field's value and escapes."""
    field = _FIELD.match(line)
    kept = field[0] if field else line.replace(" [selected]", "")
    return kept.replace('\\"', '"').replace("\\\\", "\\")


def _in_time(read: Callable[[], _Result]) -> _Result:
    """Run what waits for a page.

    Raises:
        SlowPageError: It does not come in time, or the shop does not answer.
        Error: The browser has died.
    """
    try:
        return read()
    except BrowserTimeout as error:
        raise SlowPageError("the page does not come in time") from error
    except Error as error:
        if _NETWORK not in error.message:
            raise  # The browser has died.
        raise SlowPageError(f"the page does not come: {error.message.splitlines()[0]}") from error
