"""Constraints compiled in a sandbox first.

Small grammars exist whose compilation takes minutes, and others that overflow the stack of the
process; neither shows in their text. So each new one is compiled in a worker process that can be
killed. A grammar that passes compiles here too, and in time.
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
from gpt2flow.server.grammar.sandbox import SandboxWorker, Verdict
from gpt2flow.server.params import ConstraintKind, ConstraintParams

# Compilations at the same time; the second worker starts when it is needed.
WORKERS: Final = 2

# Constraints that may wait for a worker; more are refused.
QUEUE_CAPACITY: Final = 64

_CACHED_VERDICTS: Final = 4096


class SandboxedCompiler:
    """Compiler of constraints that passed the sandbox, with cached verdicts."""

    def __init__(self, compiler: GrammarCompiler, seconds: float) -> None:
        """Prepare the workers; the first use of each starts it.

        Args:
            compiler: Compiles what has passed.
            seconds: Time limit of one compilation.
        """
        self._compiler = compiler
        self._idle: queue.LifoQueue[SandboxWorker] = queue.LifoQueue()
        self._workers = [SandboxWorker(compiler.setup, seconds) for _ in range(WORKERS)]
        for worker in self._workers:
            self._idle.put(worker)
        self._verdicts: OrderedDict[int, Verdict] = OrderedDict()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="grammar")
        self._queue = CompileQueue(WORKERS, QUEUE_CAPACITY)

    def start(self) -> None:
        """Start the first worker ahead of the first constraint."""
        self._threads.submit(self.compile, ConstraintParams(ConstraintKind.CHOICES, ("a",)))

    def has_verdict(self, params: ConstraintParams) -> bool:
        """Return whether a constraint has been through the sandbox."""
        return hash(params) in self._verdicts

    async def precompile(
        self,
        params: ConstraintParams,
        caller: str,
        deadline: float | None = None,
        *,
        allow_partial: bool = False,
    ) -> None:
        """Compile a constraint in the sandbox, ahead of `compile`.

        It runs in threads of its own: slow constraints delay only each other, and those of their
        own caller first.

        Args:
            params: The constraint.
            caller: Name of the caller.
            deadline: Deadline of the request, on the event loop's clock.
            allow_partial: Whether to wait even if compilation is not expected to start in time.

        Raises:
            OverloadedError: The queue is full, and this caller holds most of it.
            TimeLimitError: The deadline passes before the verdict, or is expected to.
        """
        if self.has_verdict(params):
            return
        request = CompileRequest(params, caller, asyncio.get_running_loop().create_future())
        self._queue.add(request)
        try:
            self._run_next()
            if deadline is not None and not allow_partial:
                self._queue.check_deadline(request, deadline)
            async with asyncio.timeout_at(deadline):
                await request.done
        except TimeoutError as error:
            text = "the time of the request was up before its constraint was compiled"
            raise TimeLimitError(text) from error
        finally:
            self._queue.discard(request)

    def check(self, params: ConstraintParams) -> None:
        """Check a constraint as far as that takes no compilation.

        Raises:
            GrammarError: The source is invalid, or has failed in the sandbox before.
        """
        verdict = self._verdicts.get(hash(params))
        if verdict is None:
            self._compiler.check(params)
        elif verdict.error is not None:
            raise GrammarError(verdict.error)

    def compile(self, params: ConstraintParams) -> Constraint:
        """Return a constraint at its start.

        May be called from any thread, and may take long.

        Raises:
            GrammarError: The source is invalid, or takes too much time or memory.
        """
        verdict = self._verdict(params)
        if verdict.error is not None:
            raise GrammarError(verdict.error)
        return self._compiler.compile(params)

    def close(self) -> None:
        """End the workers; for the event loop's thread."""
        for request in self._queue.clear():
            _resolve(request, DrainingError("the model is shutting down"))
        self._threads.shutdown(wait=False, cancel_futures=True)
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().end()
        for worker in self._workers:
            worker.kill()

    def _run_next(self) -> None:
        """Start the next compilations, one for each free worker."""
        while request := self._queue.take():
            job = asyncio.get_running_loop().run_in_executor(
                self._threads, self._compile_once, request.params
            )
            job.add_done_callback(partial(self._end, request, time.monotonic()))

    def _compile_once(self, params: ConstraintParams) -> bool:
        """Compile a constraint twice; return whether that killed the worker.

        The sandbox compiles it first, then this process.
        """
        cached = self.has_verdict(params)
        try:
            verdict = self._verdict(params)
            if verdict.error is None:
                self._compiler.compile(params)
        except GrammarError:
            return False
        return verdict.killed_worker and not cached

    def _end(self, request: CompileRequest, began: float, job: "asyncio.Future[bool]") -> None:
        if job.cancelled():  # By `close`.
            _resolve(request, DrainingError("the model is shutting down"))
            return
        error = job.exception()
        killed_worker = error is None and job.result()
        self._queue.end(request, time.monotonic() - began, killed_worker=killed_worker)
        _resolve(request, error)
        self._run_next()

    def _verdict(self, params: ConstraintParams) -> Verdict:
        """Return the cached verdict on a constraint, or that of the sandbox.

        Raises:
            GrammarError: The source is invalid, which shows without the sandbox.
        """
        key = hash(params)
        with self._lock:
            cached = self._verdicts.get(key)
        if cached is not None:
            return cached
        verdict = self._run(write_grammar(params))
        with self._lock:
            self._verdicts[key] = verdict
            if len(self._verdicts) > _CACHED_VERDICTS:
                self._verdicts.popitem(last=False)
        return verdict

    def _run(self, grammar: str) -> Verdict:
        worker = self._idle.get()
        try:
            return worker.run(grammar)
        finally:
            self._idle.put(worker)


def _resolve(request: CompileRequest, error: BaseException | None) -> None:
    """Resolve the future of a compilation, unless its client has left."""
    if request.done.done():
        return
    if error is None:
        request.done.set_result(None)
    else:
        request.done.set_exception(error)
