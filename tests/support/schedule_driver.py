"""Scheduler driven as the engine drives it, without a model."""

import itertools
from collections.abc import Iterable

from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.scheduler import Scheduler
from gpt2flow.server.engine.sequence import Request, Sequence

IDS = itertools.count()


class ScheduleDriver:
    """Scheduler with a cache, and a clock that tests set.

    Attributes:
        now: Time of the clock, in seconds.
    """

    def __init__(self, slots: int = 4, budget: int = 4) -> None:
        self.cache = SlotCache(slots, 1000)
        self.scheduler = Scheduler(self.cache, budget)
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

    def step(self) -> list[tuple[int, int, int]]:
        """Run the next batch; return the (request id, start, stop) of spans."""
        self.admit()
        batch = self.scheduler.schedule()
        assert batch
        for span in batch:
            sequence = span.sequence
            assert self.cache.lengths[sequence.slot] == span.start < span.stop
            self.cache.extend(sequence.slot, span.tokens)
            if span.stop == len(sequence.tokens):
                sequence.tokens.append(1)
        return [(span.request.id, span.start, span.stop) for span in batch]

    def chunks(self, count: int) -> list[int]:
        """Run `count` batches; return the request ids of their chunks."""
        runs = [self.step() for _ in range(count)]
        return [number for run in runs for number, start, stop in run if stop - start > 1]
