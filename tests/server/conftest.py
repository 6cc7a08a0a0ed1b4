"""Fixtures of the server's tests: tiny model, engine and server."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.counting_engine import CountingEngine, OpenEngine
from tests.support.engine_bench import CONTEXT, EOS, SLOTS, EngineBench
from tests.support.paying_drafts import PayingDrafts
from tests.support.running_server import RunningServer, server_config, serving
from tests.support.tiny_model import bundle, checkpoint
from transformers import GPT2LMHeadModel

from gpt2flow.server.bundle.model_runner import ModelRunner
from gpt2flow.server.engine import engine
from gpt2flow.server.grammar.constraint import GrammarCompiler
from gpt2flow.server.limits import Limits
from gpt2flow.server.tokenizer.tokenizer import Tokenizer

__all__ = ["bundle", "checkpoint"]


@pytest.fixture(scope="session", autouse=True)
def _drafts_pay() -> Iterator[None]:
    """Keep measured times out of what the engines of these tests draft."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "RunCost", PayingDrafts)
        yield


@pytest.fixture(scope="session")
def reference(checkpoint: Path) -> GPT2LMHeadModel:
    """Tiny model in transformers: the oracle."""
    return GPT2LMHeadModel.from_pretrained(checkpoint).eval()


@pytest.fixture(scope="session")
def runner(bundle: Path) -> ModelRunner:
    """Runner shared by all tests; none relies on its cached content."""
    return ModelRunner(bundle / "model.onnx", slots=SLOTS, capacity=CONTEXT, threads=1)


@pytest.fixture(scope="session")
def fresh_runner(bundle: Path) -> ModelRunner:
    """Runner with one slot, for oracles that bypass the engine."""
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
def grammars(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, [EOS])


@pytest.fixture(scope="session")
def make_bench(
    runner: ModelRunner, limits: Limits, tokenizer: Tokenizer, grammars: GrammarCompiler
) -> Callable[..., EngineBench]:
    """Factory of fresh benches with a given number of slots."""

    def make(slots: int = SLOTS) -> EngineBench:
        return EngineBench(
            runner, replace(limits, max_sequences=slots), tokenizer, grammars, slots=slots
        )

    return make


@pytest.fixture
def bench(make_bench: Callable[[], EngineBench]) -> Iterator[EngineBench]:
    """Fresh bench, all slots of which must be free after the test."""
    bench = make_bench()
    yield bench
    bench.finish()
    bench.assert_all_free()


@pytest.fixture
async def running(bundle: Path) -> AsyncIterator[RunningServer]:
    """Server of the tiny bundle under two names, `first` and `second`."""
    async with serving(server_config(bundle)) as running:
        yield running


@pytest.fixture
async def open_engine(tokenizer: Any, grammars: Any) -> AsyncIterator[OpenEngine]:
    """Factory of started counting engines, which are stopped after the test."""
    harnesses: list[CountingEngine] = []

    def make(*, slots: int = 2, queued: int = 4, seconds: float = 0.001) -> CountingEngine:
        harness = CountingEngine(tokenizer, grammars, slots=slots, queued=queued, seconds=seconds)
        harness.engine.start()
        harnesses.append(harness)
        return harness

    yield make
    for harness in harnesses:
        await harness.engine.stop()
