"""The engine of one model: `step()` is the way of every token."""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from gpt2flow.server.engine.forecast import Forecast
from gpt2flow.server.engine.kv_cache import CacheCopy, SlotCache
from gpt2flow.server.engine.results import Event, GenerationResult, ScoreResult
from gpt2flow.server.engine.scheduler import Chunk, Decode, Scheduler
from gpt2flow.server.engine.sequence import Ids, Request
from gpt2flow.server.engine.sequence import Sequence as CacheRow
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
    """Interface of a model; `bundle.model_runner.ModelRunner` documents it."""

    vocabulary_size: int
    max_logit_ids: int

    def run_chunk(
        self, slot: int, tokens: Sequence[int], past: int, rows: Sequence[int], ids: Ids | None
    ) -> tuple[Floats, Floats | None]:
        """Run several tokens of one sequence."""

    def decode(
        self, tokens: Sequence[int], lengths: Sequence[int], ids: Ids | None
    ) -> tuple[Floats, Floats | None]:
        """Run one token of each of the first slots."""

    def copy(self, copies: Iterable[CacheCopy]) -> None:
        """Copy positions of slots to other slots."""


class Engine:
    """Runs many requests on one model. Synchronous; one thread owns it.

    Attributes:
        runs: What the runs of the model took.
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
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return bool(self._tasks)

    @property
    def slot_seconds(self) -> float:
        """Seconds from one slot given back to the next while all are taken; 0 is unknown."""
        return self._forecast.slot_seconds

    @property
    def load(self) -> EngineLoad:
        """How busy it is; another thread may ask, and sees figures up to a step apart."""
        cache = self._cache
        running, waiting = self._scheduler.counts
        filled, remembered = cache.filled
        return EngineLoad(
            running=running,
            waiting=waiting,
            slots=cache.slots,
            free_slots=cache.free_slots,
            positions=cache.slots * cache.capacity,
            positions_running=filled,
            positions_cached=remembered,
            preemptions=self._scheduler.preemptions,
        )

    def add(self, task: Task) -> None:
        """Queue a request."""
        self._scheduler.add(task.request)
        self._tasks[task.request.id] = task
        self._forecast.note_arrival()

    def abort(self, request_id: int) -> None:
        """Drop a request and frees its slots; one that has ended already is left alone."""
        if task := self._tasks.get(request_id):
            request = task.request
            if self._scheduler.remove(request):
                self._forecast.note_held(self._clock() - request.admitted, request.slots_needed)
            del self._tasks[request_id]

    def clear(self) -> None:
        """Drop all requests and all that the cache remembers, whatever state they are in."""
        self._tasks.clear()
        self._scheduler.clear()

    def check(self) -> None:
        """Make sure, after a failure, that no request and no slot is left behind.

        Raises:
            RuntimeError: One is, and would be for ever; only `clear` helps.
        """
        requests = list(self._scheduler.requests)
        held = sum(len(request.slots) for request in requests)
        known = {request.id for request in requests} == self._tasks.keys()
        if not known or held + self._cache.free_slots != self._cache.slots:
            raise RuntimeError("a request or a slot was left behind")

    def step(self) -> list[Event]:
        """Run the model once, and returns what that brought: schedule → run → sample → update."""
        events = self._expire()
        for request in self._scheduler.admit(self._clock()):
            if not request.sequences:  # One that was preempted goes on as it is.
                events += self._guard(request, self._begin)
        events += self._refuse_late()
        if alone := self._scheduler.alone:
            events += self._guard(alone, self._draft)
        batch = self._scheduler.schedule()
        if batch is None:
            return events
        try:
            logits, parts = self._run(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, the requests end with it
            events += [self._fail(request, error) for request in _requests(batch)]
            self._cache.forget()  # Nobody knows what the run left.
            return events
        for request, rows in parts:
            events += self._guard(request, partial(self._update, rows=rows, logits=logits))
        return events

    def _begin(self, task: Task) -> list[Event]:
        task.begin(self._cache)
        return self._progress(task, self._clock()) if task.done else []

    def _draft(self, task: Task) -> list[Event]:
        task.draft(self._cache)
        return []

    def _run(self, batch: Chunk | Decode) -> tuple[LogitsRows, list[tuple[Request, list[Row]]]]:
        """Run a batch and returns its logits, and which rows of them are whose."""
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
            self._forecast.note_prompt(seconds, batch.stop - batch.start)
        return ran

    def _run_chunk(self, chunk: Chunk) -> tuple[LogitsRows, list[tuple[Request, list[Row]]]]:
        sequence, start, stop = chunk.sequence, chunk.start, chunk.stop
        wanted = range(max(start, sequence.logits_from), stop)
        tokens = [*sequence.tokens, *sequence.drafts][start:stop]
        guessed = stop > len(sequence.tokens)
        ids = None if guessed else self._wanted_ids([sequence])
        outputs = self._runner.run_chunk(
            sequence.slot, tokens, start, [at - start for at in wanted], ids
        )
        self._cache.extend(sequence.slot, tokens)
        rows = [Row(sequence, position, row) for row, position in enumerate(wanted)]
        return self._rows(outputs, ids), [(chunk.request, rows)]

    def _decode(self, batch: Decode) -> tuple[LogitsRows, list[tuple[Request, list[Row]]]]:
        lengths = self._cache.lengths
        span = max(sequence.slot for sequence in batch.sequences) + 1
        tokens = [0] * span
        for sequence in batch.sequences:
            tokens[sequence.slot] = sequence.tokens[lengths[sequence.slot]]
        ids = self._wanted_ids(batch.sequences)
        outputs = self._runner.decode(tokens, lengths[:span], ids)
        parts = []
        for request, sequences in batch.parts:
            rows = [Row(each, lengths[each.slot], each.slot) for each in sequences]
            parts.append((request, rows))
        for sequence in batch.sequences:
            self._cache.extend(sequence.slot, (tokens[sequence.slot],))
        return self._rows(outputs, ids), parts

    def _wanted_ids(self, sequences: Iterable[CacheRow]) -> Ids | None:
        """Return the tokens whose logits suffice for all of the sequences; None is all tokens."""
        wanted = [sequence.logit_ids for sequence in sequences]
        known = [
            ids for ids in wanted if ids is not None and len(ids) <= self._runner.max_logit_ids
        ]
        if len(known) < len(wanted):
            return None
        ids = known[0] if len(known) == 1 else np.unique(np.concatenate(known))
        return ids if len(ids) <= self._runner.max_logit_ids else None

    def _rows(self, outputs: tuple[Floats, Floats | None], ids: Ids | None) -> LogitsRows:
        logits, logsumexp = outputs
        return LogitsRows(logits, ids, self._runner.vocabulary_size, logsumexp)

    def _update(self, task: Task, rows: list[Row], logits: LogitsRows) -> list[Event]:
        """Hand a request its logits."""
        request = task.request
        task.accept(rows, logits, self._cache)
        now = self._clock()
        if request.first_token is None and rows and rows[-1].position + 1 >= len(request.prompt):
            request.first_token = now
        return self._progress(task, now)

    def _progress(self, task: Task, now: float) -> list[Event]:
        """Return what is new of a request; ends it when it is done."""
        events = [Event(task.request.id, delta) for delta in task.deltas()]
        if task.done:
            events.append(self._end(task, task.result(now)))
        return events

    def _guard(self, request: Request, action: Callable[[Task], list[Event]]) -> list[Event]:
        """Do something for one request; when it fails, that request alone ends."""
        try:
            return action(self._tasks[request.id])
        except Exception as error:  # noqa: BLE001 - whatever it is, the request ends with it
            return [self._fail(request, error)]

    def _fail(self, request: Request, cause: Exception) -> Event:
        if isinstance(cause, GrammarError):
            error: ServerError = InvalidRequestError.of("options.constraint", str(cause))
        else:
            error = EngineError("the model could not be run")
        error.__cause__ = cause
        return self._end(self._tasks[request.id], error)

    def _expire(self) -> list[Event]:
        """End the requests whose time is up."""
        now = self._clock()
        events = []
        for request in list(self._scheduler.requests):
            if request.deadline is not None and request.deadline <= now:
                task = self._tasks[request.id]
                outcome = task.expire(now)
                events += [Event(request.id, delta) for delta in task.deltas()]
                events.append(self._end(task, outcome))
        return events

    def _refuse_late(self) -> list[Event]:
        """End the requests that wait and cannot start in time."""
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

    def _end(self, task: Task, outcome: GenerationResult | ScoreResult | ServerError) -> Event:
        self.abort(task.request.id)
        return Event(task.request.id, outcome)


def _requests(batch: Chunk | Decode) -> list[Request]:
    if isinstance(batch, Chunk):
        return [batch.request]
    return [request for request, _ in batch.parts]
