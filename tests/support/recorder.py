"""Process of the recorder, and the person who works through its port."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Error, Page, sync_playwright
from tests.support.browser import chromium_path
from tests.support.project import PROJECT
from tests.support.waiting import SECONDS, eventually

_PORT = re.compile(r"work through (http://127\.0\.0\.1:\d+)")


@dataclass(frozen=True)
class RunningRecorder:
    """Recorder at work.

    Attributes:
        process: The process, in a group of its own.
        page: Page of its browser.
        log: File of its output.
    """

    process: "subprocess.Popen[bytes]"
    page: Page
    log: Path

    @property
    def output(self) -> str:
        """Output so far, with the errors."""
        return self.log.read_text(encoding="utf-8")

    def wait_for(self, text: str) -> None:
        """Wait until the recorder says something."""
        eventually(lambda: text in self.output, lambda: self.output)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the recording, and return the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Return the exit code."""
        return self.process.wait(SECONDS)


@contextmanager
def recorder(
    folder: Path, action: str, url: str, *options: str, out: str = "screens.en.yaml"
) -> Iterator[RunningRecorder]:
    """Run a recorder until the block ends.

    Args:
        folder: Folder of its files.
        action: Action to record.
        url: Address of the first page.
        options: Further options.
        out: Name of the file of recordings.
    """
    log = folder / "recorder.log"
    command = [sys.executable, "-m", "gpt2flow.cli", "agent", "record", action, "--url", url]
    command += ["--out", str(folder / out), "--remote-port", "0", "--browser", chromium_path()]
    with (
        # A path that is short enough for the browser's socket.
        TemporaryDirectory() as temporary,
        log.open("wb") as file,
        subprocess.Popen(
            [*command, *options],
            cwd=PROJECT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": temporary},
            stdout=file,
            stderr=file,
            start_new_session=True,
        ) as process,
        sync_playwright() as playwright,
    ):
        try:

            def is_open() -> bool:
                assert process.poll() is None, log.read_text()
                return "open /" in log.read_text()

            eventually(is_open)
            found = _PORT.search(log.read_text())
            assert found is not None
            browser = playwright.chromium.connect_over_cdp(found[1])
            yield RunningRecorder(process, browser.contexts[0].pages[0], log)
            # The profile has the cookies, and perhaps what was typed.
            assert not list(Path(temporary).glob("gpt2flow-*"))
        finally:
            process.kill()
            with suppress(Error):
                playwright.stop()
