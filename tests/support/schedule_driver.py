"""Runs a schedule the way the engine does, with tokens that mean nothing."""

import itertools
from collections.abc import Iterable

from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.scheduler import Chunk, Scheduler
from gpt2flow.server.engine.sequence import Request, Sequence

IDS = itertools.count()


class Driver:
    """A scheduler, a cache and a clock."""

    def __init__(self, slots: int = 4, chunk: int = 4) -> None:
        self.cache = SlotCache(slots, 1000)
        self.scheduler = Scheduler(self.cache, chunk)
        self.now = 0.0

    @property
    def running(self) -> list[Request]:
        return self.scheduler._running

    @property
    def waiting(self) -> list[Request]:
        return list(self.scheduler._waiting)

    def add(
        self,
        prompt: int,
        *,
        width: int = 1,
        priority: int = 0,
        caller: str = "",
        tokens: Iterable[int] = (),
    ) -> Request:
        """Add a request with a prompt of so many tokens, or of these."""
        number = next(IDS)
        request = Request(
            number,
            list(tokens) or [number] * prompt,
            width,
            arrival=self.now,
            caller=caller,
            priority=priority,
        )
        self.scheduler.add(request)
        return request

    def admit(self) -> list[Request]:
        admitted = self.scheduler.admit(self.now)
        for request in admitted:
            if not request.sequences:
                prompt = request.prompt
                sequence = Sequence(
                    list(prompt), len(prompt), request.slots[0], request.logits_from
                )
                request.sequences.append(sequence)
        return admitted

    def step(self) -> tuple[str, list[int]]:
        """Run the next batch; returns its kind and the requests in it."""
        self.admit()
        batch = self.scheduler.schedule()
        assert batch is not None
        if isinstance(batch, Chunk):
            sequence = batch.sequence
            assert self.cache.lengths[sequence.slot] == batch.start < batch.stop
            self.cache.extend(sequence.slot, sequence.tokens[batch.start : batch.stop])
            if batch.stop == len(sequence.tokens):
                sequence.tokens.append(1)
            return f"chunk {batch.start}:{batch.stop}", [batch.request.id]
        for sequence in batch.sequences:
            self.cache.extend(sequence.slot, sequence.tokens[-1:])
            sequence.tokens.append(1)
        return "decode", [request.id for request, _ in batch.parts]

    def chunks(self, count: int) -> list[int]:
        """Run so many batches; returns whose the chunks among them were."""
        runs = [self.step() for _ in range(count)]
        return [ids[0] for kind, ids in runs if kind != "decode"]
