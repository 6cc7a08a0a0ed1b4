"""Engine of one model; `step()` is one iteration of continuous batching."""

import time
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from gpt2flow.server.engine.forecast import Forecast, RunCost
from gpt2flow.server.engine.kv_cache import CacheCopy, SlotCache
from gpt2flow.server.engine.results import Event, GenerationResult, ScoreResult
from gpt2flow.server.engine.scheduler import Batch, Scheduler, Span
from gpt2flow.server.engine.sequence import Ids, Request
from gpt2flow.server.engine.stats import EngineLoad, RunStats
from gpt2flow.server.engine.task import Row, Task
from gpt2flow.server.errors import (
    EngineError,
    GrammarError,
    InvalidRequestError,
    ServerError,
    TimeLimitError,
)
from gpt2flow.server.sampling.filters import Floats
from gpt2flow.server.sampling.logits import LogitsRows


class Runner(Protocol):
    """Interface of a model runner; `bundle.model_runner.ModelRunner` documents it."""

    vocabulary_size: int
    max_logit_ids: int

    def run(
        self,
        tokens: Items[int],
        slots: Items[int],
        positions: Items[int],
        rows: Items[int],
        ids: Ids | None,
    ) -> Floats:
        """Run new tokens of any sequences."""

    def copy(self, copies: Iterable[CacheCopy]) -> None:
        """Copy positions of slots to other slots."""


class Engine:
    """Synchronous engine of one model, owned by one thread.

    Attributes:
        runs: Statistics of the model's runs.
    """

    def __init__(
        self,
        runner: Runner,
        cache: SlotCache,
        scheduler: Scheduler,
        clock: Callable[[], float] = time.monotonic,
        *,
        vocabulary_size: int | None = None,
        missing_ids: Ids | None = None,
    ) -> None:
        """Take the parts of the model.

        Args:
            runner: Runner of its graph.
            cache: Slots of its KV cache.
            scheduler: Scheduler of its requests.
            clock: Source of the time, in seconds.
            vocabulary_size: Number of tokens; None for as many as the head has rows.
            missing_ids: Ids below that number without a token; None is none.
        """
        self._runner = runner
        self._vocabulary_size = vocabulary_size or runner.vocabulary_size
        self._missing_ids = missing_ids
        self._cache = cache
        self._scheduler = scheduler
        self._clock = clock
        self._forecast = Forecast(cache)
        self._cost = RunCost()
        self._tasks: dict[int, Task] = {}
        self.runs = RunStats()

    @property
    def cache(self) -> SlotCache:
        """Slots and cached positions of the model."""
        return self._cache

    @property
    def busy(self) -> bool:
        """True while requests are unfinished."""
        return bool(self._tasks)

    @property
    def release_interval(self) -> float:
        """Mean seconds between two releases of a slot; see `Forecast`."""
        return self._forecast.release_interval

    @property
    def load(self) -> EngineLoad:
        """Load of the engine.

        Another thread may read it; the figures may then be up to a step apart.
        """
        cache = self._cache
        running, waiting = self._scheduler.counts
        return EngineLoad(
            running=running,
            waiting=waiting,
            slots=cache.slots,
            free_slots=cache.free_slots,
            positions=cache.slots * cache.capacity,
            positions_running=cache.running_positions,
            positions_cached=cache.cached_positions,
            preemptions=self._scheduler.preemptions,
        )

    def add(self, task: Task) -> None:
        """Queue a request."""
        self._scheduler.add(task.request)
        self._tasks[task.request.id] = task
        self._forecast.record_arrival()

    def abort(self, request_id: int) -> None:
        """Drop a request and free its slots, unless it has ended already."""
        if task := self._tasks.get(request_id):
            request = task.request
            if self._scheduler.remove(request):
                self._forecast.record_hold(self._clock() - request.admitted, request.slots_needed)
            del self._tasks[request_id]

    def clear(self) -> None:
        """Drop all requests and all cached prefixes, in whatever state they are."""
        self._tasks.clear()
        self._scheduler.clear()

    def check(self) -> None:
        """Check, after a failure, that no request and no slot has leaked.

        Raises:
            RuntimeError: One has leaked; only `clear` gets it back.
        """
        requests = list(self._scheduler.requests)
        held = sum(len(request.slots) for request in requests)
        scheduled = {request.id for request in requests}
        if scheduled != self._tasks.keys() or held + self._cache.free_slots != self._cache.slots:
            raise RuntimeError("a request or a slot has leaked")

    def probe(self) -> None:
        """Run one token after a failed run, and record the outcome.

        No request may be unfinished. Cached prefixes are evicted.
        """
        self._cache.evict_all()
        try:
            self._runner.run([0], [0], [0], [0], None)
        except Exception:  # noqa: BLE001 - any failure counts
            self.runs.fail()
        else:
            self.runs.failures_in_row = 0

    def step(self) -> list[Event]:
        """Run the model once, and return the resulting events.

        Schedule → run → sample → update. Requests that cannot meet their deadline end first.
        """
        events = self._expire() + self._admit() + self._refuse_late() + self._draft()
        batch = self._scheduler.schedule()
        if not batch:
            return events
        try:
            logits, parts = self._run(batch)
        except Exception as error:  # noqa: BLE001 - any failure ends these requests alone
            return events + self._fail_batch(batch, error)
        for request, rows in parts:
            events += self._guard(request, partial(self._sample, rows=rows, logits=logits))
        return events

    def _expire(self) -> list[Event]:
        """End the requests whose time is up."""
        now = self._clock()
        events = []
        for request in list(self._scheduler.requests):
            if request.deadline is not None and request.deadline <= now:
                task = self._tasks[request.id]
                answer = task.expire(now)
                events += [Event(request.id, delta) for delta in task.deltas()]
                events.append(self._end(task, answer))
        return events

    def _admit(self) -> list[Event]:
        """Admit requests, and begin those that were not preempted before."""
        events = []
        for request in self._scheduler.admit(self._clock()):
            if not request.sequences:
                events += self._guard(request, self._begin)
        return events

    def _begin(self, task: Task) -> list[Event]:
        task.begin(self._cache)
        return self._update(task, self._clock()) if task.done else []

    def _refuse_late(self) -> list[Event]:
        """End the waiting requests that cannot start in time."""
        now = self._clock()
        if not self._forecast.due(now):
            return []
        events = []
        for request, seconds in self._forecast.late(self._scheduler.queue(now), now):
            remaining = (request.deadline or now) - now
            error = TimeLimitError(
                f"the request would wait {seconds:.3f} s for its first token, its time is up in "
                f"{remaining:.3f} s"
            )
            events.append(self._end(self._tasks[request.id], error))
        return events

    def _draft(self) -> list[Event]:
        """Draft tokens for speculative decoding, where that pays."""
        running = self._scheduler.running
        break_even = self._cost.break_even(sum(len(each.sequences) for each in running))
        events = []
        for request in list(running):
            events += self._guard(request, partial(self._draft_task, break_even=break_even))
        return events

    def _draft_task(self, task: Task, break_even: float) -> list[Event]:
        task.draft(self._cache, break_even)
        return []

    def _run(self, batch: Batch) -> tuple[LogitsRows, list[tuple[Request, list[Row]]]]:
        """Run a batch; return its logits, and the rows of each request."""
        started = self._clock()
        for span in batch:
            if span.request.started is None:
                span.request.started = started
        if copies := self._cache.take_copies():
            self._runner.copy(copies)
        inputs, parts = _Inputs(), dict[Request, list[Row]]()
        for span in batch:
            parts.setdefault(span.request, []).extend(inputs.add(span))
        ids = self._logit_ids(batch)
        logits = self._runner.run(
            inputs.tokens, inputs.slots, inputs.positions, inputs.logits_rows, ids
        )
        self._record(batch, self._clock() - started)
        values = LogitsRows(logits, ids, self._vocabulary_size, self._missing_ids)
        return values, list(parts.items())

    def _record(self, batch: Batch, seconds: float) -> None:
        """Record that a batch has been run."""
        for span in batch:
            self._cache.extend(span.sequence.slot, span.tokens)
        self.runs.observe(batch, seconds)
        total = sum(span.stop - span.start for span in batch)
        prompt = sum(span.stop - span.start for span in batch if span.in_prompt)
        if prompt:
            self._forecast.record_prompt(seconds * prompt / total, prompt)
        else:
            self._cost.record(total, seconds)

    def _logit_ids(self, batch: Batch) -> Ids | None:
        """Return the token ids to restrict the logits to; None is all."""
        limit = self._runner.max_logit_ids
        requested = [
            span.sequence.logit_ids for span in batch if span.stop > span.sequence.logits_from
        ]
        restricted = [ids for ids in requested if ids is not None and len(ids) <= limit]
        # Drafts are verified against the logits of all tokens.
        drafted = any(span.sequence.drafts for span in batch)
        if drafted or not restricted or len(restricted) < len(requested):
            return None
        ids = restricted[0] if len(restricted) == 1 else np.unique(np.concatenate(restricted))
        return ids if len(ids) <= limit else None

    def _sample(self, task: Task, rows: list[Row], logits: LogitsRows) -> list[Event]:
        """Sample the next tokens of a request from its logits."""
        request = task.request
        task.accept(rows, logits, self._cache)
        now = self._clock()
        if request.first_token is None and rows and rows[-1].position + 1 >= len(request.prompt):
            request.first_token = now
        return self._update(task, now)

    def _update(self, task: Task, now: float) -> list[Event]:
        """Return the new events of a request; end it if done."""
        events = [Event(task.request.id, delta) for delta in task.deltas()]
        if task.done:
            events.append(self._end(task, task.result(now)))
        return events

    def _guard(self, request: Request, action: Callable[[Task], list[Event]]) -> list[Event]:
        """Act on one request; if that fails, this request alone ends."""
        try:
            return action(self._tasks[request.id])
        except Exception as error:  # noqa: BLE001 - any failure ends this request alone
            return [self._fail(request, error)]

    def _fail_batch(self, batch: Batch, cause: Exception) -> list[Event]:
        """End all requests of a run that failed."""
        self.runs.fail()
        requests = dict.fromkeys(span.request for span in batch)
        events = [self._fail(request, cause) for request in requests]
        self._cache.evict_all()  # The run may have overwritten any position.
        return events

    def _fail(self, request: Request, cause: Exception) -> Event:
        if isinstance(cause, GrammarError):
            error: ServerError = InvalidRequestError.of("options.constraint", str(cause))
        else:
            error = EngineError("the model could not be run")
        error.__cause__ = cause
        return self._end(self._tasks[request.id], error)

    def _end(self, task: Task, answer: GenerationResult | ScoreResult | ServerError) -> Event:
        self.abort(task.request.id)
        return Event(task.request.id, answer)


@dataclass(slots=True)
class _Inputs:
    """Inputs of a run, in the order of the batch."""

    tokens: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    logits_rows: list[int] = field(default_factory=list)

    def add(self, span: Span) -> list[Row]:
        """Add a span, and return its rows of logits."""
        sequence, start, stop = span.sequence, span.start, span.stop
        offset, first = len(self.tokens) - start, len(self.logits_rows)
        needed = range(max(start, sequence.logits_from), stop)
        self.tokens += span.tokens
        self.slots += [sequence.slot] * (stop - start)
        self.positions += range(start, stop)
        self.logits_rows += [offset + position for position in needed]
        return [Row(sequence, position, row) for row, position in enumerate(needed, first)]
