"""Scheduler of an engine: admission, preemption, chunked prefill, batched decoding."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.request_queue import RequestQueue
from gpt2flow.server.engine.sequence import Request, Sequence

# One chunk of a kind in this number goes to the request that was admitted first.
FIRST_COME_EVERY: Final = 4


@dataclass(frozen=True, slots=True)
class Chunk:
    """Run of positions [start, stop) of one sequence."""

    request: Request
    sequence: Sequence
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Decode:
    """Run of the next token of many sequences, grouped by request."""

    parts: list[tuple[Request, list[Sequence]]]

    @property
    def sequences(self) -> Iterator[Sequence]:
        """All sequences, in order."""
        return (sequence for _, sequences in self.parts for sequence in sequences)


@dataclass(slots=True)
class _Work:
    """Runnable work by kind, each kind in the order of admission."""

    decode: list[tuple[Request, list[Sequence]]] = field(default_factory=list)
    extend: list[tuple[Request, Sequence]] = field(default_factory=list)
    prefill: list[tuple[Request, Sequence]] = field(default_factory=list)


class Scheduler:
    """Continuous batching: each decision is one run of the model.

    **Runs.** There are three kinds of runs, served round-robin; kinds without work are skipped:

    - decode: one step of all sequences that lack one token;
    - extend: a chunk of a sequence past its prompt that lacks several tokens, because a
      constraint forced them or a preemption evicted them;
    - prefill: a chunk of a prompt.

    If a single sequence decodes, a chunk that verifies its drafts replaces the step.

    Bound: between two decode steps, a stream waits for at most one extend chunk and one prefill
    chunk, whatever else arrives.

    **Chunks.** A chunk goes to the sequence of the highest effective priority. Among equals it
    goes to the sequence that lacks the fewest tokens, so that short prompts overtake long ones.
    But each `FIRST_COME_EVERY`-th chunk of a kind goes to the request that was admitted first.

    Bound: let a prompt, and the prompts admitted before it, be C chunks together. The prompt has
    been run after at most `FIRST_COME_EVERY` * C prefill chunks, whatever else arrives.

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

    _KINDS = ("decode", "extend", "prefill")

    def __init__(self, cache: SlotCache, chunk_size: int) -> None:
        self._cache = cache
        self._chunk_size = chunk_size
        self._turn = 0
        self._chunks: Counter[str] = Counter()
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
    def alone(self) -> Request | None:
        """Running request, if there is exactly one.

        Only then does speculative decoding pay.
        """
        return self._running[0] if len(self._running) == 1 else None

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

    def schedule(self) -> Chunk | Decode | None:
        """Return the next run of the model; None without work."""
        work = self._find_work()
        for i in range(len(self._KINDS)):
            kind = (self._turn + i) % len(self._KINDS)
            if getattr(work, self._KINDS[kind]):
                self._turn = kind + 1
                return self._batch(work, self._KINDS[kind])
        return None

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
            ready: list[Sequence] = []
            behind: list[Sequence] = []
            for sequence in request.sequences:
                lacks_one = sequence.to_run - lengths[sequence.slot] == 1
                (ready if lacks_one else behind).append(sequence)
            if ready and not (behind and request.lockstep):
                work.decode.append((request, ready))
            for sequence in behind:
                in_prompt = lengths[sequence.slot] < sequence.prompt_length
                (work.prefill if in_prompt else work.extend).append((request, sequence))
        return work

    def _batch(self, work: _Work, kind: str) -> Chunk | Decode:
        if kind == "decode":
            return self._decode(Decode(work.decode))
        behind = work.extend if kind == "extend" else work.prefill
        self._chunks[kind] += 1
        if self._chunks[kind] % FIRST_COME_EVERY == 0:
            return self._chunk(*behind[0])
        return self._chunk(*min(behind, key=self._rank))

    def _decode(self, step: Decode) -> Chunk | Decode:
        """Return the step, or the chunk that verifies a single sequence's drafts."""
        request, sequences = step.parts[0]
        if len(step.parts) > 1 or len(sequences) > 1 or not sequences[0].drafts:
            return step
        [sequence] = sequences
        start = self._cache.lengths[sequence.slot]
        stop = sequence.to_run + len(sequence.drafts)
        return Chunk(request, sequence, start, min(start + self._chunk_size, stop))

    def _rank(self, behind: tuple[Request, Sequence]) -> tuple[int, int]:
        """Return the sort key of a sequence; the least is served first."""
        request, sequence = behind
        return -request.effective_priority, sequence.to_run - self._cache.lengths[sequence.slot]

    def _chunk(self, request: Request, sequence: Sequence) -> Chunk:
        """Return the next chunk of a sequence, at least one token."""
        stop = sequence.to_run
        if request.lockstep and len(request.sequences) > 1:
            stop -= 1  # The last token waits for the decode step of all sequences.
        start = self._cache.lengths[sequence.slot]
        reusable = sequence.reusable[: stop - 1]
        if start < len(reusable):  # Other sequences may have run the same tokens since.
            reached = self._cache.reuse(sequence.slot, reusable)
            if not request.preemptions:
                prompt = len(request.prompt)
                request.cached_tokens += min(reached, prompt) - min(start, prompt)
            start = reached
        return Chunk(request, sequence, start, min(start + self._chunk_size, stop))
