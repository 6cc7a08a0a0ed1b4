"""Models of any shape generate the tokens of transformers."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from tests.support.random_models import (
    PHASES,
    TOLERANCE,
    RandomModel,
    configurations,
    random_model,
    random_tokens,
    seeds,
)
from transformers import GPT2Config, LogitsProcessor

from gpt2flow.server.engine.engine import Engine
from gpt2flow.server.engine.kv_cache import SlotCache
from gpt2flow.server.engine.results import GenerationResult
from gpt2flow.server.engine.scheduler import Scheduler
from gpt2flow.server.generation.factory import Arrival, TaskFactory
from gpt2flow.server.generation.prompts import Prompt
from gpt2flow.server.grammar.constraint import GrammarCompiler
from gpt2flow.server.limits import Limits
from gpt2flow.server.params import (
    BeamSearchParams,
    EarlyStopping,
    GenerationParams,
    SamplingParams,
    StoppingParams,
)
from gpt2flow.server.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.process

MOST_NEW_TOKENS = 20
SLOTS = 6


@dataclass(frozen=True)
class Generation:
    """One of several concurrent requests.

    Attributes:
        share: Share of the context that the prompt takes.
        most: Most new tokens, if the context has room for them.
        beams: Parameters of beam search; None for greedy search.
    """

    share: float
    most: int
    beams: BeamSearchParams | None

    def prompt_length(self, context: int) -> int:
        return max(1, round(self.share * (context - 1)))

    def new_tokens(self, context: int) -> int:
        return min(self.most, context - self.prompt_length(context))

    def params(self, context: int) -> GenerationParams:
        decoding: SamplingParams | BeamSearchParams = SamplingParams(temperature=0)
        if self.beams is not None:
            # All hypotheses are compared, not the best one alone.
            decoding = replace(self.beams, num_return_sequences=self.beams.num_beams)
        return GenerationParams(
            decoding=decoding,
            stopping=StoppingParams(max_new_tokens=self.new_tokens(context)),
        )


beams = st.builds(
    BeamSearchParams,
    num_beams=st.integers(2, 4),
    length_penalty=st.sampled_from((0.5, 1.0, 2.0)),
    early_stopping=st.sampled_from(EarlyStopping),
)
generations = st.builds(
    Generation,
    share=st.floats(0, 1),
    most=st.integers(1, MOST_NEW_TOKENS),
    beams=st.one_of(st.none(), beams, beams),
)


@settings(phases=PHASES, max_examples=60)
@given(
    config=configurations(),
    seed=seeds,
    requests=st.lists(generations, min_size=1, max_size=3),
    chunk=st.integers(1, 32),
    eos_at=st.integers(0, MOST_NEW_TOKENS),
)
def test_tokens_equal_transformers(
    config: GPT2Config, seed: int, requests: list[Generation], chunk: int, eos_at: int
) -> None:
    """Greedy and beam search of several requests run concurrently."""
    prompts = [
        random_tokens(config, request.prompt_length(config.n_positions), seed + row)
        for row, request in enumerate(requests)
    ]
    with random_model(config, seed, SLOTS) as model:
        eos = end_of_text(model, prompts[0], requests[0], eos_at)
        produced = engine_tokens(model, prompts, requests, chunk, eos)
        for prompt, request, actual in zip(prompts, requests, produced, strict=True):
            expected = transformers_tokens(model, prompt, request, eos)
            event(
                f"{'beams' if request.beams else 'greedy'}, "
                f"eos: {sum(row[-1] == eos for row in expected)} of {len(expected)}"
            )
            if actual != expected:
                # A choice that depends on less than the tolerance is not an error.
                event("not decided")
                assume(is_decided(model, prompt, request, eos, expected))
            assert actual == expected


def end_of_text(model: RandomModel, prompt: list[int], request: Generation, at: int) -> int:
    """Return a token to end the text, preferably a generated one."""
    rows = transformers_tokens(model, prompt, request, eos=model.config.vocab_size)
    tokens = [token for row in rows for token in row]
    return tokens[at] if at < len(tokens) else at % model.config.vocab_size


def engine_tokens(
    model: RandomModel,
    prompts: list[list[int]],
    requests: list[Generation],
    chunk: int,
    eos: int,
) -> list[list[list[int]]]:
    """Return the engine's sequences for each prompt, best first."""
    config, tokenizer = model.config, Tokenizer(model.tokenizer_json.encode())
    cache = SlotCache(SLOTS, config.n_positions)
    engine = Engine(model.runner, cache, Scheduler(cache, chunk))
    factory = TaskFactory(
        limits=Limits(
            context_length=config.n_positions,
            vocabulary_size=config.vocab_size,
            max_sequences=SLOTS,
            max_queued=len(requests),
            max_top_logprobs=0,
            default_max_new_tokens=1,
        ),
        eos_token_ids=[eos],
        tokenizer=tokenizer,
        grammars=GrammarCompiler(tokenizer, [eos]),
        next_id=itertools.count().__next__,
    )
    for prompt, request in zip(prompts, requests, strict=True):
        given = [Prompt("prompt", tuple(prompt))]
        params = request.params(config.n_positions)
        [task] = factory.generations(factory.resolve(given, params), params, Arrival(0.0))
        engine.add(task)
    results = {}
    while engine.busy:
        for each in engine.step():
            assert isinstance(each.content, GenerationResult), each.content
            results[each.request_id] = [list(c.token_ids) for c in each.content.candidates]
    return [results[at] for at in range(len(requests))]


def transformers_tokens(
    model: RandomModel,
    prompt: list[int],
    request: Generation,
    eos: int,
    processors: Sequence[LogitsProcessor] = (),
) -> list[list[int]]:
    """Return the sequences of transformers for a prompt, best first."""
    beams = (
        {}
        if request.beams is None
        else {
            "num_beams": request.beams.num_beams,
            "num_return_sequences": request.beams.num_beams,
            "length_penalty": request.beams.length_penalty,
            "early_stopping": EarlyStopping(request.beams.early_stopping).value,
        }
    )
    with torch.no_grad():
        rows = model.oracle.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=request.new_tokens(model.config.n_positions),
            eos_token_id=eos,
            pad_token_id=eos,
            logits_processor=list(processors),
            **beams,
        )[:, len(prompt) :].tolist()
    return [row[: row.index(eos) + 1] if eos in row else row for row in rows]


class Jitter(LogitsProcessor):  # type: ignore[misc]
    """Logits processor that adds noise within the tolerance."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        del input_ids
        noise = torch.rand(scores.shape, generator=self._generator) * 2 - 1
        return scores + TOLERANCE * noise


def is_decided(
    model: RandomModel,
    prompt: list[int],
    request: Generation,
    eos: int,
    tokens: list[list[int]],
) -> bool:
    """Return whether small changes of the logits leave the tokens unchanged."""
    return all(
        transformers_tokens(model, prompt, request, eos, [Jitter(seed)]) == tokens
        for seed in range(8)
    )
