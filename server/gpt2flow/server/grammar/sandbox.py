"""Worker process that compiles grammars, and can be killed."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gpt2flow.server.errors import EngineError, GrammarError, OverloadedError
from gpt2flow.server.grammar.messages import explain

_PROGRAM: Final = Path(__file__).with_name("worker.py")
_START_SECONDS: Final = 60.0
_END_SECONDS: Final = 1.0
_MEMORY: Final = 512 * 2**20
_CHUNK: Final = 2**16

# A compilation ends with its processor time. On a busy machine, this many times as long is given.
PATIENCE: Final = 5.0

# Signals by which others end a worker, which says nothing about its grammar.
_FOREIGN: Final = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP}


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

    def __init__(
        self, setup: Mapping[str, Any], seconds: float, patience: float = PATIENCE
    ) -> None:
        """Prepare a worker.

        Args:
            setup: Facts about the model that the process needs.
            seconds: Most processor time of one compilation.
            patience: Most time of one compilation, as a multiple of this.
        """
        self._setup = setup
        self._seconds = seconds
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, grammar: str) -> Verdict:
        """Compile a grammar.

        Raises:
            EngineError: The process does not start.
            OverloadedError: The machine gave it too little time, or ended it.
        """
        process = self._process or self._start()
        try:
            return Verdict(_ask(process, grammar, self._seconds * self._patience))
        except TimeoutError as error:
            self.end()
            raise self._busy("the machine is too busy to compile a new constraint") from error
        except (OSError, EOFError) as error:
            code = _exit_code(process)
            self.end()
            if code in _FOREIGN:
                raise self._busy("the compilation of the constraint was ended by others") from error
        if code == -signal.SIGPROF:
            text = f"takes longer to compile than the limit of {self._seconds:g} s"
        else:
            text = "takes too much memory, or is nested too deeply"
        return Verdict(text, killed_worker=True)

    def kill(self) -> None:
        """Kill the process; the thread that waits for its answer ends it."""
        if (process := self._process) is not None:
            process.kill()

    def end(self) -> None:
        """End the process, and collect it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()

    def _busy(self, text: str) -> OverloadedError:
        return OverloadedError(text, retry_after_seconds=self._seconds)

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # noqa: S603 - the program is our own, grammars are its input
            [sys.executable, "-I", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self._process = process
        assert process.stdin is not None
        # A worker that is stopped does not read, and a grammar may exceed what its pipe holds.
        os.set_blocking(process.stdin.fileno(), False)
        # Tokens are any bytes, and JSON of plain ASCII is the cheapest to write.
        tokens = self._setup["tokens"]
        setup = {
            **self._setup,
            "tokens": b64encode(b"".join(tokens)).decode("ascii"),
            "lengths": list(map(len, tokens)),
            "memory": _MEMORY,
            "seconds": self._seconds,
        }
        try:
            _ask(process, setup, _START_SECONDS)
        except (OSError, EOFError) as error:
            self.end()
            raise EngineError("the sandbox worker for grammars does not start") from error
        return process


def _ask(process: subprocess.Popen[bytes], question: object, seconds: float) -> str | None:
    """Send a line, and return the error in the answer to it.

    Raises:
        TimeoutError: There is none in time.
        OSError, EOFError: The process has ended.
    """
    ends = time.monotonic() + seconds
    line = json.dumps(question).encode("ascii") + b"\n"
    error: str | None = json.loads(_exchange(process, line, ends))
    return None if error is None else str(GrammarError(explain(error)))


def _exchange(process: subprocess.Popen[bytes], question: bytes, ends: float) -> bytes:
    """Write a line to a process, and return its answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    source, target = process.stdout.fileno(), process.stdin.fileno()
    poll = select.poll()
    poll.register(source, select.POLLIN)
    poll.register(target, select.POLLOUT)
    unsent, answer = memoryview(question), b""
    while not answer.endswith(b"\n"):
        ready = dict(poll.poll(max(ends - time.monotonic(), 0) * 1000))
        if not ready:
            raise TimeoutError
        if target in ready:
            unsent = unsent[os.write(target, unsent[:_CHUNK]) :]
            if not unsent:
                poll.unregister(target)
        if source in ready:
            if not (chunk := os.read(source, _CHUNK)):
                raise EOFError
            answer += chunk
    return answer


def _exit_code(process: subprocess.Popen[bytes]) -> int | None:
    """Return the exit code of a process that is about to end."""
    try:
        return process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        return None
