"""Worker process that compiles grammars, and can be killed."""

import json
import select
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gpt2flow.server.errors import EngineError, GrammarError

_PROGRAM: Final = Path(__file__).with_name("worker.py")
_START_SECONDS: Final = 60.0
_MEMORY: Final = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of a sandboxed compilation.

    Attributes:
        error: Reason why the grammar is refused; None if it compiles.
        killed_worker: Whether the worker died of it, or had to be killed.
    """

    error: str | None = None
    killed_worker: bool = False


class SandboxWorker:
    """One worker process, started when it is needed."""

    def __init__(self, setup: Mapping[str, Any], seconds: float) -> None:
        """Prepare a worker.

        Args:
            setup: Facts about the model that the process needs.
            seconds: Time limit of one compilation.
        """
        self._setup = setup
        self._seconds = seconds
        self._process: subprocess.Popen[str] | None = None

    def run(self, grammar: str) -> Verdict:
        """Compile a grammar.

        Raises:
            EngineError: The process does not start.
        """
        process = self._process or self._start()
        try:
            return Verdict(self._ask(process, grammar, self._seconds))
        except TimeoutError:
            error = f"takes longer to compile than the limit of {self._seconds:g} s"
        except (OSError, EOFError):
            error = "takes too much memory, or is nested too deeply"
        self.end()
        return Verdict(error, killed_worker=True)

    def kill(self) -> None:
        """Kill the process; the thread that waits for its answer ends it."""
        if (process := self._process) is not None:
            process.kill()

    def end(self) -> None:
        """End the process, and collect it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(  # noqa: S603 - the program is our own, grammars are its input
            [sys.executable, "-I", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        self._process = process
        # The file has megabytes, and JSON of plain ASCII is the cheapest to write.
        tokenizer = b64encode(self._setup["tokenizer"]).decode("ascii")
        setup = {**self._setup, "tokenizer": tokenizer, "memory": _MEMORY}
        try:
            self._ask(process, setup, _START_SECONDS)
        except (OSError, EOFError) as error:
            self.end()
            raise EngineError("the sandbox worker for grammars does not start") from error
        return process

    def _ask(self, process: subprocess.Popen[str], question: object, seconds: float) -> str | None:
        """Send a line, and return the answer to it.

        Raises:
            TimeoutError: There is none in time.
            OSError, EOFError: The process has ended.
        """
        assert process.stdin is not None
        assert process.stdout is not None
        ends = time.monotonic() + seconds
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        remaining = max(ends - time.monotonic(), 0)
        if not select.select([process.stdout], [], [], remaining)[0]:
            raise TimeoutError
        if not (line := process.stdout.readline()):
            raise EOFError
        error: str | None = json.loads(line)
        return None if error is None else str(GrammarError(error))
