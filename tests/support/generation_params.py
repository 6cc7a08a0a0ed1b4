"""Parameters, prompts and Hypothesis strategies of the engine's tests."""

import json
from typing import Any

import torch
from hypothesis import strategies as st
from tests.support.engine_bench import EOS, EngineBench
from transformers import GPT2LMHeadModel

from gpt2flow.server.engine.sequence import FinishReason
from gpt2flow.server.params import (
    BeamSearchParams,
    ConstraintKind,
    ConstraintParams,
    GenerationParams,
    SamplingParams,
    StoppingParams,
)

GREEDY = SamplingParams(temperature=0)
PROMPT = [40, 88, 120, 7, 301]


def greedy(max_new_tokens: int = 12, **stopping: Any) -> GenerationParams:
    """Return greedy parameters with the given stopping criteria."""
    return GenerationParams(
        decoding=GREEDY, stopping=StoppingParams(max_new_tokens=max_new_tokens, **stopping)
    )


SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "name": {"enum": ["cup", "cups"]},
            "amount": {"type": "integer", "maximum": 99},
        },
        "required": ["name", "amount"],
        "additionalProperties": False,
    }
)


def greedy_tokens(bench: EngineBench, count: int = 12) -> list[int]:
    """Decode `PROMPT` greedily to exactly `count` tokens."""
    [tokens] = bench.tokens(PROMPT, greedy(count, ignore_eos=True))
    return tokens


def run_single(bench: EngineBench, params: GenerationParams) -> tuple[FinishReason, list[int], str]:
    """Return finish reason, token ids and text of a single candidate."""
    [candidate] = bench.run(PROMPT, params).candidates
    return candidate.finish_reason, list(candidate.token_ids), candidate.text


def eos_params(**options: Any) -> GenerationParams:
    """Return parameters that make the end of text the likeliest token."""
    decoding = SamplingParams(temperature=0, logit_bias=((EOS, 100.0),))
    return GenerationParams(decoding=decoding, stopping=StoppingParams(max_new_tokens=4, **options))


def reference_logprobs(model: GPT2LMHeadModel, tokens: list[int]) -> torch.Tensor:
    """Return the log-probabilities [tokens, vocabulary] that transformers computes."""
    with torch.no_grad():
        logprobs: torch.Tensor = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    return logprobs


prompts = st.lists(st.integers(1, 300), min_size=1, max_size=40)
seeds = st.integers(0, 2**64 - 1)
sampling = st.one_of(
    st.just(GREEDY),
    st.builds(
        SamplingParams,
        seed=seeds,
        temperature=st.sampled_from([0.5, 1.0, 1.5]),
        top_k=st.sampled_from([0, 5, 50]),
        top_p=st.sampled_from([1.0, 0.9]),
        n=st.sampled_from([1, 1, 2, 3]),
    ),
    st.builds(
        SamplingParams,
        seed=seeds,
        temperature=st.sampled_from([0, 1]),
        repetition_penalty=st.sampled_from([1.0, 1.3]),
        presence_penalty=st.sampled_from([0.0, 1.0]),
        no_repeat_ngram_size=st.sampled_from([0, 2]),
        bad_words=st.sampled_from([(), ("cup", "e")]),
    ),
)
stopping = st.builds(
    StoppingParams,
    max_new_tokens=st.integers(1, 20),
    min_new_tokens=st.sampled_from([0, 1]),
    stop_strings=st.sampled_from([(), ("e",), ("or", "is ")]),
    stop_token_ids=st.lists(st.integers(0, 300), max_size=10).map(tuple),
    ignore_eos=st.booleans(),
)
constraints = st.sampled_from(
    [
        None,
        None,
        ConstraintParams(ConstraintKind.REGEX, ("[a-c]{2,9}",)),
        ConstraintParams(ConstraintKind.CHOICES, ("order", "orders", "my new address", "我想买")),
        ConstraintParams(
            ConstraintKind.JSON_SCHEMA,
            (SCHEMA,),
        ),
    ]
)
generations = st.builds(
    GenerationParams, decoding=sampling, stopping=stopping, constraint=constraints
)
beams = st.builds(
    GenerationParams,
    decoding=st.builds(
        BeamSearchParams, num_beams=st.integers(2, 4), num_return_sequences=st.integers(1, 2)
    ),
    stopping=stopping,
    constraint=constraints,
)
