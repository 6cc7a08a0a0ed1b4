"""Tries grammars in processes of their own before the server compiles them.

There are small grammars whose compilation takes minutes, and some that end the process by
overflowing its stack; neither can be told from their text. So each is tried first where it can
be killed. What passes is known to compile, and to do so in time.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from gpt2flow.server.errors import DrainingError, GrammarError, TimeLimitError
from gpt2flow.server.grammar.compile_queue import CompileQueue, CompileRequest
from gpt2flow.server.grammar.constraint import Constraint, GrammarCompiler, write_grammar
from gpt2flow.server.grammar.sandbox import Outcome, SandboxWorker
from gpt2flow.server.params import ConstraintKind, ConstraintParams

# Grammars that are tried at the same time; the second process starts when it is needed.
WORKERS: Final = 2

# Grammars that may wait to be tried; more are refused.
QUEUE_CAPACITY: Final = 64

_REMEMBERED = 4096


class SandboxedCompiler:
    """Compiles constraints that passed a trial; remembers which did, and why others did not."""

    def __init__(self, compiler: GrammarCompiler, seconds: float) -> None:
        """Take the compiler, and how long a grammar may take."""
        self._compiler = compiler
        self._idle: queue.LifoQueue[SandboxWorker] = queue.LifoQueue()
        self._processes = [SandboxWorker(compiler.setup, seconds) for _ in range(WORKERS)]
        for process in self._processes:
            self._idle.put(process)
        self._outcomes: OrderedDict[int, Outcome] = OrderedDict()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="grammar")
        self._line = CompileQueue(WORKERS, QUEUE_CAPACITY)

    def start(self) -> None:
        """Start the first process, so that the first constraint need not wait for that."""
        self._threads.submit(self.compile, ConstraintParams(ConstraintKind.CHOICES, ("a",)))

    def knows(self, params: ConstraintParams) -> bool:
        """Return whether a grammar was tried already."""
        return hash(params) in self._outcomes

    async def prepare(
        self,
        params: ConstraintParams,
        caller: str,
        deadline: float | None = None,
        *,
        allow_partial: bool = False,
    ) -> None:
        """Try a grammar, so that `compile` takes no longer than the compilation.

        Runs in threads of its own: however many grammars come, and however slow they are,
        they delay nothing but each other, and of these the caller's own first.

        Args:
            params: The constraint.
            caller: Who sent it.
            deadline: Of the request, by the clock of the event loop.
            allow_partial: Whether it waits even if it is not expected to start in time.

        Raises:
            OverloadedError: Too many of this caller's wait for a trial.
            TimeLimitError: It cannot be tried in time, or was not.
        """
        if self.knows(params):
            return
        trial = CompileRequest(params, caller, asyncio.get_running_loop().create_future())
        self._line.add(trial)
        try:
            self._run_next()
            if deadline is not None and not allow_partial:
                self._line.check_deadline(trial, deadline)
            async with asyncio.timeout_at(deadline):
                await trial.done
        except TimeoutError as error:
            text = "the time of the request was up before its constraint was compiled"
            raise TimeLimitError(text) from error
        finally:
            self._line.discard(trial)

    def check(self, params: ConstraintParams) -> None:
        """Check what can be told of a grammar without trying it.

        Raises:
            GrammarError: The source is not valid, or was tried and failed.
        """
        known = self._outcomes.get(hash(params))
        if known is None:
            self._compiler.check(params)
        elif known.error is not None:
            raise GrammarError(known.error)

    def compile(self, params: ConstraintParams) -> Constraint:
        """Return a constraint at its start. May be called from any thread, and may take long.

        Raises:
            GrammarError: The source is not valid, or asks for too much time or memory.
        """
        outcome = self._outcome(params)
        if outcome.error is not None:
            raise GrammarError(outcome.error)
        return self._compiler.compile(params)

    def close(self) -> None:
        """End the processes; for the event loop's thread."""
        for trial in self._line.clear():
            _resolve(trial, DrainingError("the model is shutting down"))
        self._threads.shutdown(wait=False, cancel_futures=True)
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().end()
        for process in self._processes:
            process.kill()

    def _run_next(self) -> None:
        """Run the trials whose turn it is, as many as there are processes for."""
        while trial := self._line.take():
            job = asyncio.get_running_loop().run_in_executor(
                self._threads, self._prepared, trial.params
            )
            job.add_done_callback(partial(self._end, trial, time.monotonic()))

    def _prepared(self, params: ConstraintParams) -> bool:
        """Try and compiles a grammar; returns whether that cost the process."""
        known = self.knows(params)
        try:
            outcome = self._outcome(params)
            if outcome.error is None:
                self._compiler.compile(params)
        except GrammarError:
            return False
        return outcome.killed_worker and not known

    def _end(self, trial: CompileRequest, began: float, job: "asyncio.Future[bool]") -> None:
        if job.cancelled():  # By `close`.
            _resolve(trial, DrainingError("the model is shutting down"))
            return
        error = job.exception()
        killed_worker = error is None and job.result()
        seconds = time.monotonic() - began
        self._line.end(trial, seconds, killed_worker=killed_worker)
        _resolve(trial, error)
        self._run_next()

    def _outcome(self, params: ConstraintParams) -> Outcome:
        """Return what came of the trial of a grammar, or tries it.

        Raises:
            GrammarError: It is not one, which shows without a trial.
        """
        key = hash(params)
        with self._lock:
            known = self._outcomes.get(key)
        if known is not None:
            return known
        outcome = self._try(write_grammar(params))
        with self._lock:
            self._outcomes[key] = outcome
            if len(self._outcomes) > _REMEMBERED:
                self._outcomes.popitem(last=False)
        return outcome

    def _try(self, grammar: str) -> Outcome:
        process = self._idle.get()
        try:
            return process.run(grammar)
        finally:
            self._idle.put(process)


def _resolve(trial: CompileRequest, error: BaseException | None) -> None:
    """Tell who waits for a trial that it has ended, unless they have left."""
    if trial.done.done():
        return
    if error is None:
        trial.done.set_result(None)
    else:
        trial.done.set_exception(error)
