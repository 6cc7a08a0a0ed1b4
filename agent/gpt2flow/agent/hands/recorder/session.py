"""Session of the recorder: checks, browser, and the file it writes."""

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from playwright.async_api import BrowserContext, Error, async_playwright

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.flows import FlowBook, load_flows
from gpt2flow.agent.hands.browser import ARGUMENTS, LOCALES, find_chromium
from gpt2flow.agent.hands.recorder.assembly import (
    make_recording,
    make_sign_in,
    serving_elements,
)
from gpt2flow.agent.hands.recorder.capture import Capture
from gpt2flow.agent.hands.recorder.document import (
    left_of_sign_in,
    left_to_do,
    read_recordings,
    write_action,
    write_sign_in,
)
from gpt2flow.agent.hands.recorder.drafts import DraftFile, DraftSignIn
from gpt2flow.agent.hands.recorder.fields import TemplateFields, parse_arguments
from gpt2flow.agent.hands.recorder.naming import register_engine
from gpt2flow.agent.hands.recording import SESSION
from gpt2flow.agent.net.addresses import parse_url
from gpt2flow.agent.wording import Language

# Name in place of an action.
SIGN_IN: Final = "sign-in"
_CLEANUPS: Final = 50
_CLEANUP_SECONDS: Final = 0.2
_DISPLAYS: Final = ("DISPLAY", "WAYLAND_DISPLAY")


@dataclass(frozen=True)
class RecorderConfig:
    """Settings of the recorder.

    Attributes:
        action: Action to record, or `sign-in`.
        url: Address of the page to start on.
        out: File to write to.
        language: Language that the pages are wanted in.
        arguments: Values of the action's arguments, each `name=value`.
        outcome: Outcome that the page will show; None takes the only one that is `ok`.
        flows: Folder of the flows; None selects the built-in flows.
        browser: Path of Chromium; None looks for it.
        remote_port: Port to work through, without a window; 0 picks a free one. None opens a
            window.
    """

    action: str
    url: str
    out: Path
    language: Language = "en"
    arguments: tuple[str, ...] = ()
    outcome: str | None = None
    flows: Path | None = None
    browser: str | None = None
    remote_port: int | None = None


def record(config: RecorderConfig, report: Callable[[str], None]) -> None:
    """Record what a person does, until the window closes, SIGINT or SIGTERM.

    Args:
        config: Settings.
        report: Function that takes each line for the person.

    Raises:
        InputError: A setting is invalid.
        RecorderError: Something was done that no step can do; nothing was written.
    """
    book = load_flows(config.flows)
    action = None if config.action == SIGN_IN else config.action
    outcome = _check(config, book, action)
    arguments = parse_arguments(book, action, config.arguments, config.language)
    if action is None and SESSION not in arguments:
        raise InputError("--argument session=… is missing: the conversation to serve")
    read_recordings(config.out, DraftSignIn if action is None else DraftFile)
    executable = find_chromium(config.browser)
    fields = TemplateFields(arguments)
    capture = asyncio.run(_capture(config, executable, fields, report))
    if action is None:
        sign_in = make_sign_in(capture.deeds, capture.sight, fields)
        write_sign_in(config.out, sign_in)
        shown = serving_elements(capture.sight, fields)
        left = left_of_sign_in(str(config.out), sign_in, shown)
        _report_left(f"wrote {config.out}", left, report)
        return
    recording = make_recording(capture.deeds, capture.sight, fields, outcome)
    recording = write_action(config.out, action, recording)
    where = f"{config.out}: action {action}"
    left = left_to_do(where, book, action, recording)
    _report_left(f"wrote {where}, outcomes {sorted(recording.outcomes)}", left, report)


def _report_left(written: str, left: Sequence[str], report: Callable[[str], None]) -> None:
    report(f"{written}; left to do:" if left else written)
    for each in left:
        report(f"- {each}")


def _check(config: RecorderConfig, book: FlowBook, action: str | None) -> str:
    """Check settings, and return the outcome to record.

    Raises:
        InputError: A setting is invalid.
    """
    parse_url(config.url, "--url")
    has_display = sys.platform != "linux" or any(os.environ.get(each) for each in _DISPLAYS)
    if config.remote_port is None and not has_display:
        raise InputError(
            "there is no display: start the recorder on a desktop, or give --remote-port and"
            " work through that port"
        )
    if config.remote_port:
        _check_free(config.remote_port)
    if action is None:
        if config.outcome is not None:
            raise InputError(f"--outcome is {config.outcome!r}, but the sign-in has no outcomes")
        return ""
    if action not in book.actions:
        expected = ", ".join([SIGN_IN, *book.actions])
        raise InputError(f"action is {action!r}, expected one of {expected}")
    return _outcome(config, book, action)


def _check_free(port: int) -> None:
    """Check that a port is free, without which Chromium starts too."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(f"--remote-port is {port}: {error.strerror}") from error


def _outcome(config: RecorderConfig, book: FlowBook, action: str) -> str:
    outcomes = book.actions[action].outcomes
    successes = [name for name, each in outcomes.items() if each.result == "ok"]
    if config.outcome is None and len(successes) == 1:
        return successes[0]
    if config.outcome not in outcomes:
        raise InputError(
            f"--outcome is {config.outcome or 'missing'!r}, expected one of {sorted(outcomes)}:"
            f" what the page will say about {action}"
        )
    return config.outcome


async def _capture(
    config: RecorderConfig,
    executable: str,
    fields: TemplateFields,
    report: Callable[[str], None],
) -> Capture:
    """Capture until a person ends it."""
    async with _window(config, executable, report) as context:
        capture = Capture(context, fields, report, is_sign_in=config.action == SIGN_IN)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, capture.stop)
        await capture.open(config.url)
        await capture.run()
        # Ctrl-C has ended Playwright's process too, of which its calls complain.
        loop.set_exception_handler(lambda *_: None)
        return capture


@asynccontextmanager
async def _window(
    config: RecorderConfig, executable: str, report: Callable[[str], None]
) -> AsyncIterator[BrowserContext]:
    """Open a window with a profile that is deleted at the end.

    Raises:
        InputError: The browser does not start.
    """
    port = config.remote_port
    arguments = [*ARGUMENTS, *([] if os.geteuid() else ["--no-sandbox"])]
    if port is not None:
        arguments += [f"--remote-debugging-port={port}", "--remote-debugging-address=127.0.0.1"]
    with _new_profile() as profile:
        async with async_playwright() as playwright:
            await register_engine(playwright)
            try:
                context = await playwright.chromium.launch_persistent_context(
                    profile,
                    executable_path=executable,
                    args=arguments,
                    headless=port is not None,
                    handle_sigint=False,
                    handle_sigterm=False,
                    locale=LOCALES[config.language],
                    no_viewport=port is None,
                )
            except Error as error:
                line = error.message.splitlines()[0]
                raise InputError(f"{executable} does not start: {line}") from error
            try:
                if port is not None:
                    chosen = port or _free_port(profile)
                    report(f"work through http://127.0.0.1:{chosen} (DevTools)")
                yield context
            finally:
                # Unless the person closed it, or Ctrl-C ended it.
                with suppress(Error):
                    await context.close()


@contextmanager
def _new_profile() -> Iterator[Path]:
    """Make a folder for a profile, and delete it at the end."""
    profile = Path(tempfile.mkdtemp(prefix="gpt2flow-recorder-"))
    try:
        yield profile
    finally:
        # A browser that is ending still writes to it.
        for _ in range(_CLEANUPS):
            shutil.rmtree(profile, ignore_errors=True)
            time.sleep(_CLEANUP_SECONDS)
            if not profile.exists():
                break


def _free_port(profile: Path) -> int:
    """Return the port that Chromium has picked."""
    return int((profile / "DevToolsActivePort").read_text(encoding="utf-8").split()[0])
