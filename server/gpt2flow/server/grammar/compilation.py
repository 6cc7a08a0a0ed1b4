"""Constraints compiled in a sandbox first.

Small grammars exist whose compilation takes minutes, and others that overflow the stack of the
process; neither shows in their text. So each new one is compiled in a worker process that can be
killed. A grammar that passes compiles here too, and in time.
"""

import contextlib
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Final

from gpt2flow.server.errors import GrammarError, InvalidRequestError
from gpt2flow.server.grammar.constraint import Constraint, GrammarCompiler, write_grammar
from gpt2flow.server.grammar.sandbox import PATIENCE, SandboxWorker, Verdict
from gpt2flow.server.params import ConstraintKind, ConstraintParams
from gpt2flow.server.work_pool import WorkKind, WorkPool

# Compilations at the same time; the second worker starts when it is needed.
WORKERS: Final = 2

# Constraints that may wait for a worker; more are refused.
QUEUE_CAPACITY: Final = 64

# Seconds for which a grammar that exceeded its processor time or memory is refused unseen.
VERDICT_SECONDS: Final = 60.0

_CACHED_VERDICTS: Final = 4096

# Seconds after which the first worker starts, unless a constraint needs it before.
_START_SECONDS: Final = 1.0

_KIND: Final = WorkKind(noun="constraint", done="compiled", queue="compile queue")


class SandboxedCompiler:
    """Compiler of constraints that passed the sandbox, with cached verdicts."""

    def __init__(
        self,
        compiler: GrammarCompiler,
        seconds: float,
        *,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the workers; the first use of each starts it.

        Args:
            compiler: Compiles what has passed.
            seconds: Most processor time of one compilation.
            patience: Most time of one compilation, as a multiple of this.
            clock: Source of the time by which verdicts expire, in seconds.
        """
        self._compiler = compiler
        self._idle: queue.LifoQueue[SandboxWorker] = queue.LifoQueue()
        self._workers = [SandboxWorker(compiler.setup, seconds, patience) for _ in range(WORKERS)]
        for worker in self._workers:
            self._idle.put(worker)
        self._clock = clock
        self._verdicts: OrderedDict[int, tuple[Verdict, float]] = OrderedDict()  # With their ends.
        self._lock = threading.Lock()
        self._pool = WorkPool(_KIND, WORKERS, QUEUE_CAPACITY)
        self._starting: threading.Timer | None = None

    def start(self) -> None:
        """Start the first worker soon, ahead of the first constraint."""
        # The first requests of a server that has just loaded have the processor.
        self._starting = threading.Timer(_START_SECONDS, self._start_worker)
        self._starting.daemon = True
        self._starting.start()

    def _start_worker(self) -> None:
        params = ConstraintParams(ConstraintKind.CHOICES, ("a",))
        with contextlib.suppress(RuntimeError):  # The pool was closed meanwhile.
            self._pool.submit(partial(self.compile, params))

    def has_verdict(self, params: ConstraintParams) -> bool:
        """Return whether a constraint has been through the sandbox."""
        return self._cached(params) is not None

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
            OverloadedError: The queue is full, and this caller holds most of it; or the machine is
                too busy.
            TimeLimitError: The deadline passes before the verdict, or is expected to.
        """
        if self.has_verdict(params):
            return
        await self._pool.run(
            lambda _: self._compile_once(params),
            caller,
            deadline,
            allow_partial=allow_partial,
            harmful=lambda killed_worker: killed_worker,
        )

    def check(self, params: ConstraintParams) -> None:
        """Check a constraint as far as that takes no compilation.

        Raises:
            GrammarError: The source is invalid, or has failed in the sandbox before.
        """
        verdict = self._cached(params)
        if verdict is None:
            self._compiler.check(params)
        elif verdict.error is not None:
            raise GrammarError(verdict.error)

    def compile(self, params: ConstraintParams) -> Constraint:
        """Return a constraint at its start.

        May be called from any thread, and may take long.

        Raises:
            GrammarError: The source is invalid, or takes too much time or memory.
            OverloadedError: The machine is too busy to compile it.
        """
        verdict = self._verdict(params)
        if verdict.error is not None:
            raise GrammarError(verdict.error)
        return self._compiler.compile(params)

    def close(self) -> None:
        """End the workers; for the event loop's thread."""
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None  # It holds this object.
        self._pool.close()
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().end()
        for worker in self._workers:
            worker.kill()

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

    def _verdict(self, params: ConstraintParams) -> Verdict:
        """Return the cached verdict on a constraint, or that of the sandbox.

        Raises:
            GrammarError: The source is invalid, which shows without the sandbox.
            OverloadedError: The machine is too busy to compile it.
        """
        if (cached := self._cached(params)) is not None:
            return cached
        verdict = self._run(write_grammar(params))
        ends = self._clock() + VERDICT_SECONDS if verdict.killed_worker else inf
        with self._lock:
            self._verdicts[hash(params)] = verdict, ends
            if len(self._verdicts) > _CACHED_VERDICTS:
                self._verdicts.popitem(last=False)
        return verdict

    def _cached(self, params: ConstraintParams) -> Verdict | None:
        """Return the verdict on a constraint, unless it has expired."""
        with self._lock:
            verdict, ends = self._verdicts.get(hash(params), (None, inf))
        return verdict if self._clock() < ends else None

    def _run(self, grammar: str) -> Verdict:
        worker = self._idle.get()
        try:
            return worker.run(grammar)
        finally:
            self._idle.put(worker)


class RefusingCompiler:
    """Compiler of a model without constraints, which refuses each by name."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def start(self) -> None:
        """Start nothing."""

    def close(self) -> None:
        """End nothing."""

    async def precompile(
        self,
        params: ConstraintParams,
        caller: str,
        deadline: float | None = None,
        *,
        allow_partial: bool = False,
    ) -> None:
        """Compile nothing: `check` refuses every constraint before."""

    def check(self, _params: ConstraintParams) -> None:
        """Refuse a constraint.

        Raises:
            InvalidRequestError: Names the reason.
        """
        raise InvalidRequestError.of("options.constraint", self._reason)

    def compile(self, params: ConstraintParams) -> Constraint:
        """Refuse a constraint, as `check` does."""
        self.check(params)
        raise AssertionError
