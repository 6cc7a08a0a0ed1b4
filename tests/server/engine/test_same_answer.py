"""A quantized model answers the same, whatever else it runs.

By construction: each operator treats each row by itself. The shipped model answers 60 prompts, one
by one in an empty cache, and many at once with shared prefixes, chunks and drafts.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tests.support.engine_bench import EngineBench
from tests.support.operators import KERNELS
from tests.support.project import SHIPPED_BUNDLE

from gpt2flow.server.bundle.manifest import load_bundle
from gpt2flow.server.bundle.model_runner import ModelRunner
from gpt2flow.server.grammar.constraint import GrammarCompiler
from gpt2flow.server.limits import Limits
from gpt2flow.server.params import GenerationParams, SamplingParams, StoppingParams
from gpt2flow.server.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.process

PROMPTS = 60
SLOTS = 16
CONTEXT = 256
LENGTH = 24


@dataclass(frozen=True)
class Shop:
    """Shipped model on the kernels of a name."""

    directory: Path
    kernels: str

    def bench(self, threads: int = 2) -> EngineBench:
        """Return an engine with an empty cache."""
        shape = load_bundle(self.directory).manifest.shape
        tokenizer = Tokenizer.from_file(self.directory / "tokenizer.json")
        runner = ModelRunner(
            self.directory / "model.onnx",
            slots=SLOTS,
            capacity=CONTEXT,
            threads=threads,
            kernels=self.kernels,
        )
        limits = Limits(
            context_length=CONTEXT,
            vocabulary_size=shape.vocabulary_size,
            max_sequences=SLOTS,
            max_queued=PROMPTS,
            max_top_logprobs=5,
            default_max_new_tokens=LENGTH,
        )
        grammars = GrammarCompiler(tokenizer, shape.eos_token_ids)
        return EngineBench(runner, limits, tokenizer, grammars, slots=SLOTS, context=CONTEXT)


def prompts(vocabulary: int) -> list[list[int]]:
    """Return prompts of many lengths; a third share a long prefix."""
    rng = np.random.default_rng(0)
    shared = rng.integers(5, vocabulary, 90).tolist()
    lengths = rng.integers(1, 180, PROMPTS).tolist()
    own = [rng.integers(5, vocabulary, length).tolist() for length in lengths]
    return [
        (shared + tokens)[:200] if number % 3 == 0 else tokens for number, tokens in enumerate(own)
    ]


def params(number: int) -> GenerationParams:
    """Return greedy parameters for even numbers, and seeded ones for odd ones."""
    decoding = SamplingParams(temperature=float(number % 2), seed=number)
    stopping = StoppingParams(max_new_tokens=LENGTH, ignore_eos=True)
    return GenerationParams(decoding=decoding, stopping=stopping)


@pytest.mark.parametrize("kernels", [name for name in KERNELS if name != "onnxruntime"])
def test_prompts_answer_the_same_alone_and_at_once(kernels: str) -> None:
    """All prompts on the best kernels, and some on the others."""
    shop = Shop(SHIPPED_BUNDLE, kernels)
    alone, together = shop.bench(threads=1), shop.bench()
    given = prompts(alone.limits.vocabulary_size)[: PROMPTS if kernels == KERNELS[0] else 12]
    expected = []
    for number, prompt in enumerate(given):
        alone.engine.clear()
        expected.append(alone.run(prompt, params(number)).candidates[0])
    tasks = [
        together.add(together.task(prompt, params(number))) for number, prompt in enumerate(given)
    ]
    together.finish()
    actual = [together.result(task).candidates[0] for task in tasks]
    assert [each.token_ids for each in actual] == [each.token_ids for each in expected]
    # Log-probabilities show every bit of the logits.
    assert [each.cumulative_logprob for each in actual] == [
        each.cumulative_logprob for each in expected
    ]
    results = [together.result(task) for task in tasks]
    assert sum(result.usage.cached_tokens for result in results) > 0
    assert sum(result.usage.drafted_tokens for result in results) > 0
