"""Threaded engine on a fake model that counts, for predictable output."""

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from tests.support.waiting import until

from gpt2flow.server.engine.async_engine import AsyncEngine
from gpt2flow.server.engine.engine import Engine
from gpt2flow.server.engine.kv_cache import CacheCopy, SlotCache
from gpt2flow.server.engine.results import Event
from gpt2flow.server.engine.scheduler import Scheduler
from gpt2flow.server.engine.task import Task
from gpt2flow.server.generation.factory import Arrival, TaskFactory
from gpt2flow.server.generation.prompts import Prompt
from gpt2flow.server.limits import Limits
from gpt2flow.server.params import GenerationParams, SamplingParams, StoppingParams
from gpt2flow.server.sampling.filters import Floats, Ids

VOCABULARY = 20


class CountingRunner:
    """Fake model that always predicts the last token plus one.

    Attributes:
        seconds: Duration of a run.
        runs: Number of runs so far.
    """

    vocabulary_size = VOCABULARY
    max_logit_ids = 0

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.runs = 0

    def run(
        self,
        tokens: Sequence[int],
        _slots: Sequence[int],
        _positions: Sequence[int],
        rows: Sequence[int],
        _ids: Ids | None = None,
    ) -> Floats:
        self.runs += 1
        time.sleep(self.seconds)
        following = (np.array([tokens[row] for row in rows], np.intp) + 1) % VOCABULARY
        return np.eye(VOCABULARY, dtype=np.float32)[following]

    def copy(self, copies: Iterable[CacheCopy]) -> None:
        pass


class CountingEngine:
    """Async engine on a `CountingRunner`, and a factory of its tasks."""

    def __init__(
        self, tokenizer: Any, grammars: Any, *, slots: int, queued: int, seconds: float
    ) -> None:
        limits = Limits(
            context_length=1000,
            vocabulary_size=VOCABULARY,
            max_sequences=slots,
            max_queued=queued,
            max_top_logprobs=5,
            default_max_new_tokens=16,
        )
        self.runner = CountingRunner(seconds)
        self.cache = SlotCache(slots, 1000)
        self.engine = AsyncEngine(
            "test",
            Engine(self.runner, self.cache, Scheduler(self.cache, 8)),
            slots=slots,
            max_queued=queued,
        )
        self.factory = TaskFactory(
            limits=limits,
            eos_token_ids=[0],
            tokenizer=tokenizer,
            grammars=grammars,
            next_id=itertools.count().__next__,
        )

    def task(
        self,
        count: int = 5,
        *,
        n: int = 1,
        stream: bool = False,
        priority: int = 0,
        caller: str = "",
    ) -> Task:
        """Make a task of `n` candidates with `count` tokens each."""
        params = GenerationParams(
            decoding=SamplingParams(temperature=1 if n > 1 else 0, n=n),
            stopping=StoppingParams(max_new_tokens=count, ignore_eos=True),
            priority=priority,
        )
        arrival = Arrival(time.monotonic(), caller=caller)
        prompts = self.factory.resolve([Prompt("prompt", (3, 4))], params)
        [task] = self.factory.generations(prompts, params, arrival, stream=stream)
        return task

    async def run(self, task: Task) -> list[Event]:
        """Submit a task and return all of its events."""
        with self.engine.submit([task]) as [events]:
            return [event async for event in events]

    async def wait_all_free(self) -> None:
        """Return when all slots are free."""
        await until(lambda: self.cache.free_slots == self.cache.slots)


OpenEngine = Callable[..., CountingEngine]
