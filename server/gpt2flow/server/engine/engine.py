"""Engine of one model; `step()` is one iteration of continuous batching."""

import time
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Items
from functools import partial
from typing import Protocol

import numpy as np

from gpt2flow.server.engine.forecast import Forecast
from gpt2flow.server.engine.kv_cache import CacheCopy, SlotCache
from gpt2flow.server.engine.results import Event, GenerationResult, ScoreResult
from gpt2flow.server.engine.scheduler import Chunk, Decode, Scheduler
from gpt2flow.server.engine.sequence import Ids, Request, Sequence
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

    def run_chunk(
        self, slot: int, tokens: Items[int], past: int, rows: Items[int], ids: Ids | None
    ) -> tuple[Floats, Floats | None]:
        """Run several tokens of one sequence."""

    def decode(
        self, tokens: Items[int], lengths: Items[int], ids: Ids | None
    ) -> tuple[Floats, Floats | None]:
        """Run one token in each of the first slots."""

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
    ) -> None:
        self._runner = runner
        self._cache = cache
        self._scheduler = scheduler
        self._clock = clock
        self._forecast = Forecast(cache)
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

    def step(self) -> list[Event]:
        """Run the model once, and return the resulting events.

        Schedule → run → sample → update. Requests that cannot meet their deadline end first.
        """
        events = self._expire() + self._admit() + self._refuse_late() + self._draft()
        batch = self._scheduler.schedule()
        if batch is None:
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
        """Draft tokens for speculative decoding, if one request runs alone."""
        alone = self._scheduler.alone
        return self._guard(alone, self._draft_task) if alone else []

    def _draft_task(self, task: Task) -> list[Event]:
        task.draft(self._cache)
        return []

    def _run(self, batch: Chunk | Decode) -> tuple[LogitsRows, list[tuple[Request, list[Row]]]]:
        """Run a batch; return its logits, and the rows of each request."""
        started = self._clock()
        for request in _requests(batch):
            if request.started is None:
                request.started = started
        if copies := self._cache.take_copies():
            self._runner.copy(copies)
        ran = self._run_chunk(batch) if isinstance(batch, Chunk) else self._decode(batch)
        seconds = self._clock() - started
        self.runs.observe(batch, seconds)
        if isinstance(batch, Chunk) and batch.stop <= len(batch.request.prompt):
            self._forecast.record_prompt(seconds, batch.stop - batch.start)
        return ran

    def _run_chunk(self, chunk: Chunk) -> tuple[LogitsRows, list[tuple[Request, list[Row]]]]:
        sequence, start, stop = chunk.sequence, chunk.start, chunk.stop
        positions = range(max(start, sequence.logits_from), stop)
        tokens = [*sequence.tokens, *sequence.drafts][start:stop]
        # Drafts are verified against the logits of all tokens.
        ids = None if stop > len(sequence.tokens) else self._logit_ids([sequence])
        outputs = self._runner.run_chunk(
            sequence.slot, tokens, start, [position - start for position in positions], ids
        )
        self._cache.extend(sequence.slot, tokens)
        rows = [Row(sequence, position, row) for row, position in enumerate(positions)]
        return self._logits(outputs, ids), [(chunk.request, rows)]

    def _decode(self, batch: Decode) -> tuple[LogitsRows, list[tuple[Request, list[Row]]]]:
        lengths = self._cache.lengths
        span = max(sequence.slot for sequence in batch.sequences) + 1
        tokens = [0] * span
        for sequence in batch.sequences:
            tokens[sequence.slot] = sequence.tokens[lengths[sequence.slot]]
        ids = self._logit_ids(batch.sequences)
        outputs = self._runner.decode(tokens, lengths[:span], ids)
        parts = []
        for request, sequences in batch.parts:
            rows = [Row(each, lengths[each.slot], each.slot) for each in sequences]
            parts.append((request, rows))
        for sequence in batch.sequences:
            self._cache.extend(sequence.slot, (tokens[sequence.slot],))
        return self._logits(outputs, ids), parts

    def _logit_ids(self, sequences: Iterable[Sequence]) -> Ids | None:
        """Return the token ids to restrict the logits to; None is all."""
        limit = self._runner.max_logit_ids
        requested = [sequence.logit_ids for sequence in sequences]
        restricted = [ids for ids in requested if ids is not None and len(ids) <= limit]
        if len(restricted) < len(requested):
            return None
        ids = restricted[0] if len(restricted) == 1 else np.unique(np.concatenate(restricted))
        return ids if len(ids) <= limit else None

    def _logits(self, outputs: tuple[Floats, Floats | None], ids: Ids | None) -> LogitsRows:
        logits, logsumexp = outputs
        return LogitsRows(logits, ids, self._runner.vocabulary_size, logsumexp)

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

    def _fail_batch(self, batch: Chunk | Decode, cause: Exception) -> list[Event]:
        """End all requests of a run that failed."""
        events = [self._fail(request, cause) for request in _requests(batch)]
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


def _requests(batch: Chunk | Decode) -> list[Request]:
    if isinstance(batch, Chunk):
        return [batch.request]
    return [request for request, _ in batch.parts]
