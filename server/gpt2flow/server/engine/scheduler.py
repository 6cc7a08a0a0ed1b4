"""Who runs next: admits and preempts requests, splits prompts into chunks, batches decode steps."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.request_queue import RequestQueue
from gpt2flow.server.engine.sequence import Request, Sequence

# Of so many chunks of a kind, one goes to the request that was admitted first.
FIRST_COME_EVERY: Final = 4


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

    **Runs.** Three kinds take turns, each only when it has work: a decode step
    of all sequences that lack one token; a chunk of a sequence whose prompt has
    been run and that lacks more, because a constraint forced them or because it
    was preempted; a chunk of a prompt. So a running stream waits for at most
    one chunk of each of the two other kinds between two of its own runs,
    whatever else arrives.

    **Chunks.** Of the sequences that lack several tokens, the one of the
    highest effective priority goes first, among equals the one that lacks the
    fewest: a short question does not wait for the prompts of long ones. But
    each `FIRST_COME_EVERY`-th chunk of a kind goes to the request that was
    admitted first. So when a prompt and those that were admitted before it are
    C chunks together, it has been run after at most `FIRST_COME_EVERY` * C
    chunks of prompts, whatever else arrives.

    **Admission.** Requests are admitted by effective priority, which waiting
    raises, and among equals the callers take turns (`RequestQueue`), when
    all slots that they need are free. One that needs many slots is not
    overtaken by narrow ones, of which there may always be more: the slots that
    become free are kept for it.

    **Preemption.** When the waiting request of the highest priority does not
    fit, running ones give their slots up to it, the lowest and latest first, if
    their effective priority is lower than what it asked for and that makes
    enough room. They wait again, in the order of their arrival among equals,
    and go on where they were: tokens are kept, what the cache forgot is run
    again. There is no ping-pong: the own aging of a request preempts nobody,
    and what waiting raised an effective priority to, it keeps while it runs.

    Attributes:
        preemptions: How often a request had to give its slots up, so far.
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
        """Forget all requests, and frees all slots, whatever state they are in."""
        self._waiting = RequestQueue()
        self._running: list[Request] = []  # In the order of admission.
        self._cache.clear()

    @property
    def requests(self) -> Iterator[Request]:
        """All requests that have not ended, the running ones first."""
        yield from self._running
        yield from self._waiting

    @property
    def alone(self) -> Request | None:
        """The running request, if there is but one; it has time to have guesses checked."""
        return self._running[0] if len(self._running) == 1 else None

    @property
    def counts(self) -> tuple[int, int]:
        """How many requests run, and how many wait."""
        return len(self._running), len(self._waiting)

    def add(self, request: Request) -> None:
        """Put a request into the queue."""
        self._waiting.add(request)

    def queue(self, now: float) -> list[Request]:
        """Return the requests that wait, as their turns will come if no others do."""
        return self._waiting.order(now)

    def remove(self, request: Request) -> bool:
        """Take an ended request out, wherever it stands, and frees its slots, which remember.

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
        """Give slots to those who wait; returns whom.

        Those among them that were preempted have sequences already, which are
        in slots again.
        """
        admitted = []
        while request := self._next_to_admit(now):
            self._waiting.admit(request, now)
            self._give_slots(request)
            request.admitted = now
            self._running.append(request)
            admitted.append(request)
        return admitted

    def schedule(self) -> Chunk | Decode | None:
        """Return what the model runs next; None when there is nothing to do."""
        work = self._find_work()
        for i in range(len(self._KINDS)):
            kind = (self._turn + i) % len(self._KINDS)
            if getattr(work, self._KINDS[kind]):
                self._turn = kind + 1
                return self._batch(work, self._KINDS[kind])
        return None

    def _next_to_admit(self, now: float) -> Request | None:
        """Return whose turn it is, once there is room, which may be made by preemption."""
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
        """Return whom to preempt so that a request fits; nobody if that is not enough."""
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
        """Put a running request back into the queue; it will go on where it is."""
        for sequence in request.sequences:
            sequence.logits_from = max(sequence.logits_from, self._cache.lengths[sequence.slot])
        request.slots_needed = len(request.slots)
        request.queued += now - request.admitted
        request.preemptions += 1
        self.preemptions += 1
        self.remove(request)
        self.add(request)

    def _give_slots(self, request: Request) -> None:
        """Reserve the slots of a request, with what the cache remembers of its tokens."""
        # In the order of the slots that they had, where their tokens may still be.
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
        """Return a decode step; one of a single sequence also checks what is guessed of it."""
        request, sequences = step.parts[0]
        if len(step.parts) > 1 or len(sequences) > 1 or not sequences[0].drafts:
            return step
        [sequence] = sequences
        start = self._cache.lengths[sequence.slot]
        stop = sequence.to_run + len(sequence.drafts)
        return Chunk(request, sequence, start, min(start + self._chunk_size, stop))

    def _rank(self, behind: tuple[Request, Sequence]) -> tuple[int, int]:
        """Return what orders those who want a chunk: the least is first."""
        request, sequence = behind
        return -request.effective_priority, sequence.to_run - self._cache.lengths[sequence.slot]

    def _chunk(self, request: Request, sequence: Sequence) -> Chunk:
        """Return what of a sequence to run now, at least one token."""
        stop = sequence.to_run
        if request.lockstep and len(request.sequences) > 1:
            stop -= 1  # The last token waits until none of them lacks more.
        start = self._cache.lengths[sequence.slot]
        wanted = sequence.reusable[: stop - 1]
        if start < len(wanted):  # Others may have run the same tokens since.
            reached = self._cache.reuse(sequence.slot, wanted)
            if not request.preemptions:
                prompt = len(request.prompt)
                request.cached_tokens += min(reached, prompt) - min(start, prompt)
            start = reached
        return Chunk(request, sequence, start, min(start + self._chunk_size, stop))
