"""A tiny random GPT-2, its bundle, and an engine that is stepped by hand."""

import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2flow.export import Profile, export_bundle
from gpt2flow.server.bundle.model_runner import ModelRunner
from gpt2flow.server.engine.engine import Engine
from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.results import Delta, Event, GenerationResult, ScoreResult
from gpt2flow.server.engine.scheduler import Scheduler
from gpt2flow.server.engine.task import Task
from gpt2flow.server.errors import ServerError
from gpt2flow.server.generation.factory import Arrival, Prompt, TaskFactory
from gpt2flow.server.grammar.constraint import GrammarCompiler
from gpt2flow.server.limits import Limits
from gpt2flow.server.params import GenerationParams
from gpt2flow.server.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tests.support.counting_engine import OpenDesk
    from tests.support.running_server import Running

CONTEXT = 96
SLOTS = 6
CHUNK = 8
EOS = 0

TEXT = (
    '{"name": "blue cup", "amount": 12, "gift": true}',
    "Where is my order? It is late, please send it to my new address.",
    "我想买两个蓝色的杯子。谢谢！ 😀 naïve café",
)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 with a byte-level vocabulary, as training would leave it."""
    directory = tmp_path_factory.mktemp("checkpoint")
    tokenizer = HfTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|user|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 3, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    torch.set_num_threads(1)
    torch.manual_seed(7)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_positions=CONTEXT,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.3,
        bos_token_id=EOS,
        eos_token_id=EOS,
    )
    GPT2LMHeadModel(config).save_pretrained(directory)
    (directory / "eval.txt").write_text("\n".join(TEXT), encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its fp32 bundle."""
    out = tmp_path_factory.mktemp("bundle") / "fp32"
    export_bundle(checkpoint, out, profile=Profile.FP32)
    return out


@pytest.fixture(scope="session")
def reference(checkpoint: Path) -> GPT2LMHeadModel:
    """The same model in transformers: the oracle."""
    return GPT2LMHeadModel.from_pretrained(checkpoint).eval()


@pytest.fixture(scope="session")
def runner(bundle: Path) -> ModelRunner:
    """One runner for all tests: what is in its cache matters to nobody."""
    return ModelRunner(bundle / "model.onnx", slots=SLOTS, capacity=CONTEXT, threads=1)


@pytest.fixture(scope="session")
def fresh(bundle: Path) -> ModelRunner:
    """A model that nobody else uses."""
    return ModelRunner(bundle / "model.onnx", slots=1, capacity=CONTEXT, threads=1)


@pytest.fixture(scope="session")
def tokenizer(bundle: Path) -> Tokenizer:
    return Tokenizer.from_file(bundle / "tokenizer.json")


@pytest.fixture(scope="session")
def vocabulary_size(bundle: Path) -> int:
    shape = json.loads((bundle / "manifest.json").read_text())["shape"]
    return int(shape["vocabulary_size"])


@pytest.fixture(scope="session")
def limits(vocabulary_size: int) -> Limits:
    return Limits(
        context_length=CONTEXT,
        vocabulary_size=vocabulary_size,
        max_sequences=SLOTS,
        max_queued=8,
        max_top_logprobs=5,
        default_max_new_tokens=16,
    )


@pytest.fixture(scope="session")
def grammars(tokenizer: Tokenizer, vocabulary_size: int) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, vocabulary_size, EOS)


@dataclass
class Bench:
    """An engine on the real model, stepped by hand, with a clock that is set by hand."""

    runner: ModelRunner
    limits: Limits
    tokenizer: Tokenizer
    grammars: GrammarCompiler
    now: float = 0.0
    slots: int = SLOTS
    draft_tokens: int = 4
    events: dict[int, list[Event]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cache = SlotCache(self.slots, CONTEXT)
        self.engine = Engine(
            self.runner, self.cache, Scheduler(self.cache, CHUNK), clock=lambda: self.now
        )
        self.factory = TaskFactory(
            limits=self.limits,
            eos_token_id=EOS,
            tokenizer=self.tokenizer,
            grammars=self.grammars,
            next_id=itertools.count().__next__,
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
        given = prompt if isinstance(prompt, str) else tuple(prompt)
        arrival = Arrival(self.now, deadline, caller)
        prompts = self.factory.resolve([Prompt("prompt", given)], params)
        [task] = self.factory.generations(prompts, params, arrival, stream=stream)
        return task

    def add(self, task: Task) -> Task:
        self.engine.add(task)
        self.events[task.request.id] = []
        return task

    def step(self) -> list[Event]:
        events = self.engine.step()
        for event in events:
            self.events[event.request_id].append(event)
        return events

    def finish(self) -> None:
        """Steps until nothing is left."""
        for _ in range(5000):
            if not self.engine.busy:
                return
            self.step()
        raise AssertionError("the engine does not come to an end")

    def outcome(self, task: Task) -> GenerationResult | ScoreResult | ServerError | Delta:
        return self.events[task.request.id][-1].content

    def result(self, task: Task) -> GenerationResult:
        outcome = self.outcome(task)
        assert isinstance(outcome, GenerationResult), outcome
        return outcome

    def run(self, prompt: str | Sequence[int], params: GenerationParams) -> GenerationResult:
        """Run one request alone."""
        task = self.add(self.task(prompt, params))
        self.finish()
        return self.result(task)

    def assert_all_free(self) -> None:
        assert self.cache.free_slots == self.slots

    def tokens(self, prompt: str | Sequence[int], params: GenerationParams) -> list[list[int]]:
        return [list(each.token_ids) for each in self.run(prompt, params).candidates]


@pytest.fixture(scope="session")
def make_bench(
    runner: ModelRunner, limits: Limits, tokenizer: Tokenizer, grammars: GrammarCompiler
) -> Callable[..., Bench]:
    """Make fresh benches, of as many slots as are asked for."""

    def make(slots: int = SLOTS) -> Bench:
        return Bench(runner, replace(limits, max_sequences=slots), tokenizer, grammars, slots=slots)

    return make


@pytest.fixture
def bench(make_bench: Callable[[], Bench]) -> Iterator[Bench]:
    """A fresh bench; whatever a test does, no slot may stay taken."""
    bench = make_bench()
    yield bench
    bench.finish()
    bench.assert_all_free()


@pytest.fixture
async def running(bundle: Path) -> "AsyncIterator[Running]":
    # That module has the constants of this one.
    from tests.support.running_server import serving

    async with serving(bundle) as running:
        yield running


@pytest.fixture
async def open_desk(tokenizer: Any, grammars: Any) -> "AsyncIterator[OpenDesk]":
    """Open desks; their threads end with the test."""
    from tests.support.counting_engine import Desk

    desks: list[Desk] = []

    def make(*, slots: int = 2, queued: int = 4, seconds: float = 0.001) -> Desk:
        desk = Desk(tokenizer, grammars, slots=slots, queued=queued, seconds=seconds)
        desk.engine.start()
        desks.append(desk)
        return desk

    yield make
    for desk in desks:
        await desk.engine.stop()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every decode step take 10 ms, so that there is time to act in."""
    decode = ModelRunner.decode

    def slowly(*args: Any) -> Any:
        time.sleep(0.01)
        return decode(*args)

    monkeypatch.setattr(ModelRunner, "decode", slowly)
