"""Tries grammars in processes of their own before the server compiles them.

There are small grammars whose compilation takes minutes, and some that end the process by
overflowing its stack; neither can be told from their text. So each is tried first where it can
be killed. What passes is known to compile, and to do so in time.
"""

import asyncio
import contextlib
import json
import queue
import select
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from gpt2flow.server.constraint import (
    Constraint,
    GrammarCompiler,
    GrammarError,
    write_grammar,
)
from gpt2flow.server.errors import EngineError, OverloadedError
from gpt2flow.server.params import ConstraintKind, ConstraintParams

# Grammars that are tried at the same time; the second process starts when it is needed.
TRIALS: Final = 2

# Grammars that may wait to be tried; more are refused.
LINE: Final = 64

_PROGRAM = Path(__file__).with_name("grammar_worker.py")
_START_SECONDS = 60.0
_MEMORY = 512 * 2**20
_REMEMBERED = 4096


class TriedGrammars:
    """Compiles constraints that passed a trial; remembers which did, and why others did not."""

    def __init__(self, compiler: GrammarCompiler, seconds: float) -> None:
        """Takes the compiler, and how long a grammar may take."""
        self._compiler = compiler
        self._seconds = seconds
        self._idle: queue.LifoQueue[_Trial] = queue.LifoQueue()
        self._trials = [_Trial(compiler.setup, seconds) for _ in range(TRIALS)]
        for trial in self._trials:
            self._idle.put(trial)
        self._outcomes: OrderedDict[int, str | None] = OrderedDict()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(TRIALS, thread_name_prefix="grammar")
        self._in_line = 0

    def start(self) -> None:
        """Starts the first process, so that the first constraint need not wait for that."""
        self._threads.submit(self.compile, ConstraintParams(ConstraintKind.CHOICES, ("a",)))

    def knows(self, params: ConstraintParams) -> bool:
        """Returns whether a grammar was tried already."""
        return hash(params) in self._outcomes

    async def prepare(self, params: ConstraintParams) -> None:
        """Tries a grammar, so that `compile` takes no longer than the compilation.

        Runs in threads of its own: however many grammars come, and however slow they are,
        they delay nothing but each other.

        Raises:
            OverloadedError: Too many wait for a trial.
        """
        if self.knows(params):
            return
        if self._in_line >= LINE:
            raise OverloadedError(
                f"{self._in_line} constraints wait to be compiled, {LINE} may",
                retry_after_seconds=self._seconds,
            )
        self._in_line += 1
        try:
            with contextlib.suppress(GrammarError):
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._threads, self.compile, params)
        finally:
            self._in_line -= 1

    def compile(self, params: ConstraintParams) -> Constraint:
        """Returns a constraint at its start. May be called from any thread, and may take long.

        Raises:
            GrammarError: The source is not valid, or asks for too much time or memory.
        """
        key = hash(params)
        with self._lock:
            known = key in self._outcomes
            error = self._outcomes.get(key)
        if not known:
            grammar = write_grammar(params)
            error = self._try(grammar)
            with self._lock:
                self._outcomes[key] = error
                if len(self._outcomes) > _REMEMBERED:
                    self._outcomes.popitem(last=False)
        if error is not None:
            raise GrammarError(error)
        return self._compiler.compile(params)

    def close(self) -> None:
        """Ends the processes."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().end()
        for trial in self._trials:
            trial.kill()

    def _try(self, grammar: str) -> str | None:
        trial = self._idle.get()
        try:
            return trial.run(grammar)
        finally:
            self._idle.put(trial)


class _Trial:
    """One process, started when it is needed."""

    def __init__(self, setup: Mapping[str, Any], seconds: float) -> None:
        self._setup = setup
        self._seconds = seconds
        self._process: subprocess.Popen[str] | None = None

    def run(self, grammar: str) -> str | None:
        """Returns what is wrong with a grammar, or None."""
        process = self._process or self._start()
        try:
            return self._ask(process, grammar, self._seconds)
        except TimeoutError:
            self.end()
            return f"takes longer to compile than the limit of {self._seconds:g} s"
        except (OSError, EOFError):
            self.end()
            return "takes too much memory, or is nested too deeply"

    def kill(self) -> None:
        """Kills the process, if there is one; whoever waits for its answer ends it."""
        if (process := self._process) is not None:
            process.kill()

    def end(self) -> None:
        """Ends the process, if there is one."""
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
        try:
            self._ask(process, {**self._setup, "memory": _MEMORY}, _START_SECONDS)
        except (OSError, EOFError) as error:
            self.end()
            raise EngineError("the process that tries grammars does not start") from error
        return process

    def _ask(self, process: subprocess.Popen[str], question: object, seconds: float) -> str | None:
        """Sends a line and returns the answer to it.

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
        return error and " ".join(error.split())[:300]
