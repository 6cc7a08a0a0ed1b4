"""Who runs next: admits requests, splits prompts into chunks, batches decode steps."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from gpt2flow.server.kv_cache import SlotCache
from gpt2flow.server.sequence import Request, Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """Several tokens of one sequence, to be run alone: positions [start, stop)."""

    request: Request
    sequence: Sequence
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Decode:
    """The next token of many sequences, to be run together; those of one request adjoin."""

    parts: list[tuple[Request, list[Sequence]]]

    @property
    def sequences(self) -> Iterator[Sequence]:
        """All rows, in order."""
        return (sequence for _, sequences in self.parts for sequence in sequences)


@dataclass(slots=True)
class _Work:
    """What could run now, by kind; each kind in the order of admission."""

    decode: list[tuple[Request, list[Sequence]]] = field(default_factory=list)
    extend: list[tuple[Request, Sequence]] = field(default_factory=list)
    prefill: list[tuple[Request, Sequence]] = field(default_factory=list)


class Scheduler:
    """Decides, and notes who holds which slots. One run of the model per decision.

    Three kinds of runs take turns, each only when it has work: a decode step of
    all sequences that lack one token, a chunk of what a constraint forced on one
    sequence, a chunk of one prompt. So a running stream waits for at most one
    chunk of each kind between two of its own runs, whatever else arrives.

    Requests are admitted by priority, then in order of arrival, when all slots
    that they need are free; a request that needs many is not overtaken by
    smaller ones, so none starves.
    """

    _KINDS = ("decode", "extend", "prefill")

    def __init__(self, cache: SlotCache, chunk_size: int) -> None:
        self._cache = cache
        self._chunk_size = chunk_size
        self._waiting: list[tuple[int, int, Request]] = []
        self._running: list[Request] = []
        self._turn = 0

    @property
    def requests(self) -> Iterator[Request]:
        """All requests that have not ended, the running ones first."""
        yield from self._running
        yield from (request for _, _, request in self._waiting)

    def add(self, request: Request) -> None:
        """Puts a request into the queue."""
        heapq.heappush(self._waiting, (-request.priority, request.id, request))

    def remove(self, request: Request) -> None:
        """Takes an ended request out, wherever it stands, and frees its slots, which remember."""
        for slot in request.slots:
            self._cache.free(slot)
        request.slots.clear()
        if request in self._running:
            self._running.remove(request)
        else:
            self._waiting = [entry for entry in self._waiting if entry[2] is not request]
            heapq.heapify(self._waiting)

    def admit(self) -> list[Request]:
        """Gives free slots to those who wait; returns whom."""
        admitted = []
        while self._waiting and self._waiting[0][2].width <= self._cache.free_slots:
            request = heapq.heappop(self._waiting)[2]
            request.slots = self._cache.allocate(request.width, request.reusable)
            request.cached_tokens = self._cache.lengths[request.slots[0]]
            self._running.append(request)
            admitted.append(request)
        return admitted

    def schedule(self) -> Chunk | Decode | None:
        """Returns what the model runs next; None when there is nothing to do."""
        work = self._find_work()
        for i in range(len(self._KINDS)):
            kind = (self._turn + i) % len(self._KINDS)
            if getattr(work, self._KINDS[kind]):
                self._turn = kind + 1
                return self._batch(work, self._KINDS[kind])
        return None

    def _find_work(self) -> _Work:
        work = _Work()
        lengths = self._cache.lengths
        for request in self._running:
            ready = []
            for sequence in request.sequences:
                seen = lengths[sequence.slot]
                if sequence.to_run - seen == 1:
                    ready.append(sequence)
                elif seen < sequence.prompt_length:
                    work.prefill.append((request, sequence))
                else:
                    work.extend.append((request, sequence))
            if ready:
                work.decode.append((request, ready))
        return work

    def _batch(self, work: _Work, kind: str) -> Chunk | Decode:
        if kind == "decode":
            return Decode(work.decode)
        request, sequence = (work.extend if kind == "extend" else work.prefill)[0]
        if request.started is None:  # What came with it may have run the same tokens since.
            request.cached_tokens = self._cache.reuse(sequence.slot, request.reusable)
        start = self._cache.lengths[sequence.slot]
        return Chunk(request, sequence, start, min(start + self._chunk_size, sequence.to_run))
