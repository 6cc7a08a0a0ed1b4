"""Manually stepped engine on the tiny model, and the constants of both."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gpt2flow.server.bundle.model_runner import ModelRunner
from gpt2flow.server.engine.engine import Engine
from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.results import Delta, Event, GenerationResult, ScoreResult
from gpt2flow.server.engine.scheduler import Scheduler
from gpt2flow.server.engine.task import Task
from gpt2flow.server.errors import ServerError
from gpt2flow.server.generation.factory import Arrival, TaskFactory
from gpt2flow.server.generation.prompts import Prompt
from gpt2flow.server.grammar.constraint import GrammarCompiler
from gpt2flow.server.grammar.trie import TokenTrie
from gpt2flow.server.limits import Limits
from gpt2flow.server.params import GenerationParams
from gpt2flow.server.tokenizer.tokenizer import Tokenizer

# Context length of the tiny model, in tokens.
CONTEXT = 96
SLOTS = 6
# Most prompt tokens per run of the model.
CHUNK = 8
# Token id of <|endoftext|>.
EOS = 0

# Training text of the tiny model's tokenizer.
TEXT = (
    '{"name": "blue cup", "amount": 12, "gift": true}',
    "Where is my order? It is late, please send it to my new address.",
    "我想买两个蓝色的杯子。谢谢！ 😀 naïve café",
)


@dataclass
class EngineBench:
    """Engine on the tiny model, whose steps and clock tests control.

    Attributes:
        now: Time of the engine's clock, in seconds; tests set it.
        slots: Number of cache slots.
        draft_tokens: Most draft tokens per step; 0 turns speculative decoding off.
        context: Positions of a slot.
        choices: Stored lists of choices, by name.
        events: Events per request id, in the order of the steps that returned them.
    """

    runner: ModelRunner
    limits: Limits
    tokenizer: Tokenizer
    grammars: GrammarCompiler
    now: float = 0.0
    slots: int = SLOTS
    draft_tokens: int = 4
    context: int = CONTEXT
    choices: Mapping[str, TokenTrie] = field(default_factory=dict)
    events: dict[int, list[Event]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cache = SlotCache(self.slots, self.context)
        self.engine = Engine(
            self.runner, self.cache, Scheduler(self.cache, CHUNK), clock=lambda: self.now
        )
        self.factory = TaskFactory(
            limits=self.limits,
            eos_token_ids=[EOS],
            tokenizer=self.tokenizer,
            grammars=self.grammars,
            next_id=itertools.count().__next__,
            choices=self.choices,
            draft_tokens=self.draft_tokens,
        )

    def task(
        self,
        prompt: str | Sequence[int],
        params: GenerationParams,
        *,
        stream: bool = False,
        deadline: float | None = None,
        caller: str = "",
    ) -> Task:
        """Make the task of one prompt, which is text or token ids."""
        given = prompt if isinstance(prompt, str) else tuple(prompt)
        arrival = Arrival(self.now, deadline, caller)
        prompts = self.factory.resolve([Prompt("prompt", given)], params)
        [task] = self.factory.generations(prompts, params, arrival, stream=stream)
        return task

    def add(self, task: Task) -> Task:
        """Queue a task and return it."""
        self.engine.add(task)
        self.events[task.request.id] = []
        return task

    def step(self) -> list[Event]:
        """Run one step, record its events and return them."""
        events = self.engine.step()
        for event in events:
            self.events[event.request_id].append(event)
        return events

    def finish(self) -> None:
        """Step until no request is left."""
        for _ in range(5000):
            if not self.engine.busy:
                return
            self.step()
        raise AssertionError("the engine is still busy after 5000 steps")

    def outcome(self, task: Task) -> GenerationResult | ScoreResult | ServerError | Delta:
        """Return the content of the last event of a task."""
        return self.events[task.request.id][-1].content

    def result(self, task: Task) -> GenerationResult:
        """Return the result of a task that must have succeeded."""
        outcome = self.outcome(task)
        assert isinstance(outcome, GenerationResult), outcome
        return outcome

    def run(self, prompt: str | Sequence[int], params: GenerationParams) -> GenerationResult:
        """Run one request alone to its end."""
        task = self.add(self.task(prompt, params))
        self.finish()
        return self.result(task)

    def assert_deltas_match_result(self, task: Task) -> None:
        """Check that the deltas of a stream add up to its result."""
        deltas = [each.content for each in self.events[task.request.id][:-1]]
        for index, candidate in enumerate(self.result(task).candidates):
            own = [each for each in deltas if isinstance(each, Delta) and each.index == index]
            assert "".join(each.text for each in own) == candidate.text
            assert tuple(token for each in own for token in each.token_ids) == candidate.token_ids
            assert tuple(entry for each in own for entry in each.logprobs) == candidate.logprobs

    def assert_all_free(self) -> None:
        assert self.cache.free_slots == self.slots

    def tokens(self, prompt: str | Sequence[int], params: GenerationParams) -> list[list[int]]:
        """Run one request alone and return the token ids of each candidate."""
        return [list(each.token_ids) for each in self.run(prompt, params).candidates]
