"""Capture of what a person does in a window, step by step."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from playwright.async_api import BrowserContext, Dialog, Error, Page
from playwright.async_api import TimeoutError as BrowserTimeout

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.hands.errors import RecorderError
from gpt2flow.agent.hands.recorder.assembly import Deed, Sight, add_deed
from gpt2flow.agent.hands.recorder.fields import TemplateFields
from gpt2flow.agent.hands.recorder.history import WindowHistory, origin_of, path_of
from gpt2flow.agent.hands.recorder.naming import locate, name_element, named_elements
from gpt2flow.agent.hands.recording import SESSION, TOKEN, Element
from gpt2flow.agent.hands.screen import MESSAGES
from gpt2flow.agent.hands.templates import field_names, one_line

_SCRIPT: Final = Path(__file__).with_name("recorder.js")
# Time between two readings of the page's messages, and readings that wait for one at the end.
_LOOK_SECONDS: Final = 0.2
_LAST_LOOKS: Final = 15
_PAGE_MILLISECONDS: Final = 60_000
_ELEMENT_MILLISECONDS: Final = 5_000
_SECRET_FIELDS: Final = {"password": TOKEN, "one-time-code": "code"}
_REFUSED: Final = {
    "enter": "the Enter key sent a form that has no button to press",
    "file": "no step chooses a file",
}


class Capture:
    """Capture of the deeds in one window.

    A page that is opened by its address, or by going back, starts the recording again. In the
    recording of a sign-in it is a step.

    Args:
        context: Context of the browser.
        fields: Fields of templates; secrets that are typed are added.
        report: Function that takes each line for the person.
        is_sign_in: Whether a sign-in is recorded, with the serving, instead of an action.

    Attributes:
        deeds: What the person did.
        sight: What the page says since the last press.
    """

    def __init__(
        self,
        context: BrowserContext,
        fields: TemplateFields,
        report: Callable[[str], None],
        *,
        is_sign_in: bool = False,
    ) -> None:
        self._context = context
        self._page: Page = context.pages[0]
        self._fields = fields
        self._report = report
        self._is_sign_in = is_sign_in
        self._inbox: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._is_ending = asyncio.Event()
        self._before: list[str] | list[Element] = []
        self._is_new_page = False
        self.deeds = list[Deed]()
        self.sight = Sight("/")

    async def open(self, url: str) -> None:
        """Open the first page, and capture from then on.

        Raises:
            InputError: The page does not open.
        """
        context, page = self._context, self._page
        context.set_default_timeout(_ELEMENT_MILLISECONDS)
        await context.expose_binding("gpt2flowReport", self._on_report)
        await context.add_init_script(path=_SCRIPT)
        context.on("dialog", self._on_dialog)
        context.on("close", lambda _: self.stop())
        page.on("close", lambda _: self.stop())
        page.on("popup", lambda _: self._refuse("the press opened a window of its own"))
        try:
            response = await page.goto(url, timeout=_PAGE_MILLISECONDS)
        except Error as error:
            reason = _first_line(error).partition(" at ")[0]
            raise InputError(f"--url leads to {origin_of(url)}: {reason}") from error
        if response is not None and response.status >= 400:
            path = self._fields.path(path_of(url))
            raise InputError(f"--url leads to {path}, which answers with {response.status}")
        self._origin = origin_of(page.url)
        session = await context.new_cdp_session(page)
        await WindowHistory(page, session, self._on_page).start()
        self._add(Deed("open", None, path_of(url)))

    def stop(self) -> None:
        """End the capture once what was done is captured."""
        self._is_ending.set()

    async def run(self) -> None:
        """Capture until the window closes, or `stop` is called.

        Raises:
            RecorderError: Something was done that no step can do.
        """
        ending = asyncio.ensure_future(self._is_ending.wait())
        while not (self._is_ending.is_set() and self._inbox.empty()):
            try:
                handle = self._inbox.get_nowait()
            except asyncio.QueueEmpty:
                await self._look()
                await asyncio.wait([ending], timeout=_LOOK_SECONDS)
                continue
            await handle()
        for _ in range(_LAST_LOOKS):
            await self._look()
            if self._page.is_closed() or self.sight.signs:
                break
            await asyncio.sleep(_LOOK_SECONDS)

    def _on_report(self, source: Mapping[str, Any], report: Mapping[str, Any]) -> None:
        """Take what the page's script reports."""
        if report["secret"] is not None and report["text"]:
            self._fields.hide(_SECRET_FIELDS[report["secret"]], report["text"])
        if source["page"] is not self._page:
            self._refuse("it was done in another window")
        elif source["frame"] is not self._page.main_frame:
            self._refuse(f"{report['what']} is in a frame of the page, where no step reaches")
        elif report["kind"] in _REFUSED:
            self._refuse(f"{report['what']}: {_REFUSED[report['kind']]}")
        else:
            self._inbox.put_nowait(partial(self._take, report))

    async def _on_dialog(self, dialog: Dialog) -> None:
        is_question = dialog.type != "beforeunload"
        # Unless the person was faster.
        with suppress(Error):
            await (dialog.dismiss() if is_question else dialog.accept())
        if not is_question:
            return
        self._refuse(f"the page asked {dialog.message!r} in a dialog, which no step answers")

    def _on_page(self, url: str, opened: Awaitable[str | None]) -> None:
        self._is_new_page = True
        self._inbox.put_nowait(partial(self._arrive, url, opened))

    def _refuse(self, reason: str) -> None:
        async def refuse() -> None:
            raise RecorderError(self._fields.shown(reason))

        self._inbox.put_nowait(refuse)

    async def _take(self, report: Mapping[str, Any]) -> None:
        """Capture what was done with an element, and carry out a press."""
        number, what = report["number"], report["what"]
        try:
            element = await name_element(self._page, number, what)
            self._before = await self._signs()
        except RecorderError as error:
            raise RecorderError(self._fields.shown(str(error))) from error
        except Error as error:
            raise RecorderError(
                f"{self._fields.shown(what)}: the page was gone before the element had its name"
            ) from error
        field = _SECRET_FIELDS.get(report["secret"])
        deed = Deed(report["kind"], element, "" if field else report["text"] or "", field)
        self._add(deed)
        if deed.do == "press":
            self._is_new_page = False
            self.sight = Sight(path_of(self._page.url).partition("?")[0])
            await self._press(element, number)
        elif report["isHeld"]:
            # The page may be gone at once.
            with suppress(Error):
                await self._page.evaluate("number => gpt2flowRecorder.release(number)", number)

    async def _press(self, element: Element, number: int) -> None:
        try:
            await self._page.evaluate("number => gpt2flowRecorder.pass(number)", number)
            await locate(self._page, element).click(no_wait_after=True)
        except Error as error:
            if not self._page.is_closed():
                name = self._fields.shown(element.name)
                reason = "nothing else may cover it" if isinstance(error, BrowserTimeout) else ""
                raise RecorderError(
                    f"{element.role} {name!r} cannot be pressed: {reason or _first_line(error)}"
                ) from error

    async def _arrive(self, url: str, opened: Awaitable[str | None]) -> None:
        """Note a page, and whether the person opened it by its address."""
        if url.startswith("chrome-error:"):
            raise RecorderError("the shop did not answer")
        if origin_of(url) != self._origin:
            raise RecorderError(f"the page left the shop for {origin_of(url)}")
        path = await opened
        if path is not None:
            self._add(Deed("open", None, path))

    def _add(self, deed: Deed) -> None:
        if deed.do == "open" and self.deeds and not self._is_sign_in:
            self._report("the recording starts again")
            self.deeds.clear()
        if add_deed(self.deeds, deed):
            self._report(deed.text_for(self._fields))

    async def _look(self) -> None:
        """Read what the page says since the last press."""
        with suppress(Error, TimeoutError):
            signs = await asyncio.wait_for(self._signs(), 10 * _LOOK_SECONDS)
            fresh = [each for each in signs if each not in self._before]
            fresh = fresh or (list(signs) if self._is_new_page else [])
            sight = Sight(path_of(self._page.url).partition("?")[0], fresh)
            if fresh != self.sight.signs and self._pressed:
                for each in fresh:
                    self._report(f"  the page {_caption(each, self._fields)}")
            self.sight = sight

    @property
    def _pressed(self) -> bool:
        return any(deed.do == "press" for deed in self.deeds)

    async def _signs(self) -> list[str] | list[Element]:
        """Return what the page says, or elements naming the served conversation."""
        if not self._is_sign_in:
            texts = await self._page.locator(MESSAGES).all_inner_texts()
            return [text for each in texts if (text := one_line(each))]
        elements = await named_elements(self._page)
        return [each for each in elements if SESSION in field_names(self._fields.shown(each.name))]


def _caption(sign: str | Element, fields: TemplateFields) -> str:
    if isinstance(sign, Element):
        return f"shows {sign.role} {fields.shown(sign.name)!r}"
    return f"says: {fields.said(sign)}"


def _first_line(error: Error) -> str:
    return error.message.splitlines()[0]
