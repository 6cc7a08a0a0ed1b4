"""Scheduler driven as the engine drives it, without a model."""

import itertools
from collections.abc import Iterable

from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.scheduler import Chunk, Scheduler
from gpt2flow.server.engine.sequence import Request, Sequence

IDS = itertools.count()


class ScheduleDriver:
    """Scheduler with a cache, and a clock that tests set.

    Attributes:
        now: Time of the clock, in seconds.
    """

    def __init__(self, slots: int = 4, chunk: int = 4) -> None:
        self.cache = SlotCache(slots, 1000)
        self.scheduler = Scheduler(self.cache, chunk)
        self.now = 0.0

    @property
    def running(self) -> list[Request]:
        """Requests that hold slots, in order of admission."""
        return self.scheduler._running

    @property
    def waiting(self) -> list[Request]:
        """Requests that wait for slots."""
        return list(self.scheduler._waiting)

    def add(
        self,
        prompt: int,
        *,
        slots_needed: int = 1,
        priority: int = 0,
        caller: str = "",
        tokens: Iterable[int] = (),
    ) -> Request:
        """Queue a request whose prompt has `prompt` tokens, or is `tokens`."""
        number = next(IDS)
        request = Request(
            number,
            list(tokens) or [number] * prompt,
            slots_needed,
            arrival=self.now,
            caller=caller,
            priority=priority,
        )
        self.scheduler.add(request)
        return request

    def admit(self) -> list[Request]:
        """Admit requests, give each its first sequence and return them."""
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
        """Run the next batch; return its kind and its request ids."""
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
        """Run `count` batches; return the request ids of the chunks among them."""
        runs = [self.step() for _ in range(count)]
        return [ids[0] for kind, ids in runs if kind != "decode"]
