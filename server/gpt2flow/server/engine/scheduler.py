"""Scheduler of an engine: admission, preemption, and the tokens of each run."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.request_queue import RequestQueue
from gpt2flow.server.engine.sequence import Request, Sequence

# One run in this number spends its budget on the requests that were admitted first.
FIRST_COME_EVERY: Final = 4


@dataclass(frozen=True, slots=True)
class Span:
    """Positions [start, stop) of one sequence, drafts included, for one run."""

    request: Request
    sequence: Sequence
    start: int
    stop: int

    @property
    def tokens(self) -> list[int]:
        """Token ids at its positions."""
        known = self.sequence.tokens
        if self.stop <= len(known):
            return known[self.start : self.stop]
        return [*known[self.start :], *self.sequence.drafts[: self.stop - len(known)]]

    @property
    def in_prompt(self) -> bool:
        """True for a chunk of a prompt."""
        return self.start < self.sequence.prompt_length


Batch = list[Span]
"""Spans of one run of the model."""


@dataclass(slots=True)
class _Work:
    """Sequences that can run, in the order of their admission.

    Attributes:
        ready: Sequences that lack one token.
        behind: Sequences that lack several: of a prompt, or forced by a constraint, or evicted by
            a preemption.
    """

    ready: list[tuple[Request, Sequence]] = field(default_factory=list)
    behind: list[tuple[Request, Sequence]] = field(default_factory=list)


class Scheduler:
    """Continuous batching: each decision is one run of the model.

    **Runs.** A run has the next token of every sequence that lacks one. Beside these, it has a
    budget of tokens. Drafts take their part of it first, then the sequences that lack several
    tokens take chunks of the rest.

    Bound: a stream gets a token in every run, and a run has at most the budget of tokens beside
    one for each stream.

    **Chunks.** The highest effective priority goes first. Among equals, the sequence that lacks
    the fewest tokens goes first: forced tokens overtake prompts, and short prompts overtake long
    ones. But every `FIRST_COME_EVERY`-th run spends its budget in the order of admission.

    Bound: let a prompt, and the prompts admitted before it, be C budgets together. The prompt has
    been run after at most `FIRST_COME_EVERY` * C runs, whatever else arrives.

    A sequence waits for the next run if this one computes at least half of its chunk for another
    sequence. Then it reuses these tokens.

    **Admission.** The queue orders requests by effective priority, which rises with waiting, and
    serves the callers of one priority round-robin (`RequestQueue`). The first request is admitted
    when all slots that it needs are free. Until then, released slots are kept for it: requests
    that need fewer slots do not overtake it.

    **Preemption.** If the waiting request of the highest requested priority does not fit, it may
    preempt running requests. Victims have an effective priority below that requested one; the
    lowest goes first, among equals the latest admitted. Nothing is preempted unless that makes
    enough room. A victim returns to the queue in the order of its arrival. It resumes with all
    its tokens; the model reruns those that were evicted from the cache.

    Preemption does not oscillate. Aging never preempts: only the requested priority does. And a
    running request keeps the effective priority that won it its slots.

    Attributes:
        preemptions: Number of preemptions since the start.
    """

    def __init__(self, cache: SlotCache, budget: int) -> None:
        """Take the slots, and the budget of tokens of a run."""
        self._cache = cache
        self._budget = budget
        self._runs = 0
        self.preemptions = 0
        self.clear()

    def clear(self) -> None:
        """Drop all requests and free all slots, in whatever state they are."""
        self._waiting = RequestQueue()
        self._running: list[Request] = []  # Ordered by admission.
        self._cache.clear()

    @property
    def requests(self) -> Iterator[Request]:
        """All unfinished requests, the running ones first."""
        yield from self._running
        yield from self._waiting

    @property
    def running(self) -> list[Request]:
        """Requests that hold slots, in the order of their admission."""
        return self._running

    @property
    def counts(self) -> tuple[int, int]:
        """Number of running, and of waiting requests."""
        return len(self._running), len(self._waiting)

    def add(self, request: Request) -> None:
        """Queue a request."""
        self._waiting.add(request)

    def queue(self, now: float) -> list[Request]:
        """Return the waiting requests in the order of their turns."""
        return self._waiting.order(now)

    def remove(self, request: Request) -> bool:
        """Remove a request and free its slots; their tokens stay cached.

        Returns:
            Whether it was running.
        """
        running = request in self._running
        if running:
            self._running.remove(request)
        else:
            self._waiting.remove(request)
        for slot in request.slots:
            self._cache.free(slot)
        request.slots.clear()
        return running

    def admit(self, now: float) -> list[Request]:
        """Admit waiting requests, as far as there is room, and return them.

        Requests that were preempted before have sequences already, which get slots again.
        """
        admitted = []
        while request := self._next_to_admit(now):
            self._waiting.admit(request, now)
            self._allocate(request)
            request.admitted = now
            self._running.append(request)
            admitted.append(request)
        return admitted

    def schedule(self) -> Batch:
        """Return the next run of the model; empty without work."""
        work = self._find_work()
        budget = self._budget
        batch = []
        for request, sequence in work.ready:
            start = self._cache.lengths[sequence.slot]
            drafts = min(len(sequence.drafts), budget)
            batch.append(Span(request, sequence, start, start + 1 + drafts))
            budget -= drafts
        for request, sequence in self._in_order(work.behind):
            if budget <= 0:
                break
            self._reuse(request, sequence)
            chunk = self._chunk(request, sequence, budget)
            if not self._repeats(chunk, batch):
                batch.append(chunk)
                budget -= chunk.stop - chunk.start
        return batch

    def _next_to_admit(self, now: float) -> Request | None:
        """Return the next request if it fits, or preemption makes room."""
        if not self._waiting:
            return None
        if self._cache.free_slots:
            first = self._waiting.first(now)
            if first.slots_needed <= self._cache.free_slots:
                return first
        if all(each.effective_priority >= self._waiting.top_priority for each in self._running):
            return None
        highest = self._waiting.highest()
        victims = self._victims(highest)
        for victim in victims:
            self._preempt(victim, now)
        return highest if victims else None

    def _victims(self, request: Request) -> list[Request]:
        """Return the requests to preempt for another, if that makes room."""
        room = self._cache.free_slots
        victims: list[Request] = []
        latest_first = reversed(self._running)
        for each in sorted(latest_first, key=lambda each: each.effective_priority):
            if room >= request.slots_needed or each.effective_priority >= request.priority:
                break
            victims.append(each)
            room += len(each.slots)
        return victims if room >= request.slots_needed else []

    def _preempt(self, request: Request, now: float) -> None:
        """Return a running request to the queue, from which it resumes later."""
        for sequence in request.sequences:
            sequence.logits_from = max(sequence.logits_from, self._cache.lengths[sequence.slot])
        request.slots_needed = len(request.slots)
        request.queued += now - request.admitted
        request.preemptions += 1
        self.preemptions += 1
        self.remove(request)
        self.add(request)

    def _allocate(self, request: Request) -> None:
        """Allocate the slots of a request, with its cached prefix."""
        # By former slot, which may still hold the tokens.
        for sequence in sorted(request.sequences, key=lambda each: each.slot):
            [sequence.slot] = self._cache.allocate(1, sequence.reusable)
            request.slots.append(sequence.slot)
        if not request.sequences:
            request.slots = self._cache.allocate(request.slots_needed, request.reusable)
            request.cached_tokens = self._cache.lengths[request.slots[0]]
        elif rest := request.slots_needed - len(request.slots):
            request.slots += self._cache.allocate(rest)

    def _find_work(self) -> _Work:
        work = _Work()
        lengths = self._cache.lengths
        for request in self._running:
            ready: list[tuple[Request, Sequence]] = []
            behind: list[tuple[Request, Sequence]] = []
            for sequence in request.sequences:
                lacks_one = sequence.to_run - lengths[sequence.slot] == 1
                (ready if lacks_one else behind).append((request, sequence))
            if not (behind and request.lockstep):
                work.ready += ready
            work.behind += behind
        return work

    def _in_order(self, behind: list[tuple[Request, Sequence]]) -> list[tuple[Request, Sequence]]:
        """Return sequences in the order in which they share the budget."""
        if not behind:
            return behind
        self._runs += 1
        if self._runs % FIRST_COME_EVERY == 0:
            return behind
        return sorted(behind, key=self._rank)

    def _rank(self, behind: tuple[Request, Sequence]) -> tuple[int, int]:
        """Return the sort key of a sequence; the least is served first."""
        request, sequence = behind
        return -request.effective_priority, sequence.to_run - self._cache.lengths[sequence.slot]

    def _repeats(self, chunk: Span, batch: Batch) -> bool:
        """Return whether another span computes at least half of a chunk."""
        half = (chunk.start + chunk.stop + 1) // 2
        tokens = chunk.sequence.tokens[:half]
        return any(
            span.start < half <= span.stop and span.sequence.tokens[:half] == tokens
            for span in batch
        )

    def _reuse(self, request: Request, sequence: Sequence) -> None:
        """Take what other sequences have run of the same tokens since."""
        start = self._cache.lengths[sequence.slot]
        reusable = sequence.reusable[: self._chunk_end(request, sequence) - 1]
        if start < len(reusable):
            reached = self._cache.reuse(sequence.slot, reusable)
            if not request.preemptions:
                prompt = len(request.prompt)
                request.cached_tokens += min(reached, prompt) - min(start, prompt)

    def _chunk(self, request: Request, sequence: Sequence, most: int) -> Span:
        """Return the next chunk of a sequence, of 1 to `most` tokens."""
        start = self._cache.lengths[sequence.slot]
        return Span(request, sequence, start, min(start + most, self._chunk_end(request, sequence)))

    def _chunk_end(self, request: Request, sequence: Sequence) -> int:
        """Return the position before which chunks of a sequence end."""
        if request.lockstep and len(request.sequences) > 1:
            return sequence.to_run - 1  # The last token waits for the run of all sequences.
        return sequence.to_run
