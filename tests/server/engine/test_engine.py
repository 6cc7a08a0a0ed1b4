"""Engine output, compared with naive decoding and transformers."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.engine_bench import CONTEXT, EOS, EngineBench
from tests.support.examples import examples
from tests.support.generation_params import (
    GREEDY,
    PROMPT,
    beams,
    generations,
    greedy,
    prompts,
    reference_logprobs,
)
from tests.support.naive_decode import NaiveDecoder
from transformers import GPT2LMHeadModel

from gpt2flow.server.bundle.model_runner import ModelRunner
from gpt2flow.server.engine.task import Task
from gpt2flow.server.params import (
    BeamSearchParams,
    ConstraintKind,
    ConstraintParams,
    GenerationParams,
    OutputParams,
    SamplingParams,
    StoppingParams,
)


@settings(max_examples=examples(80))
@given(prompt=prompts, params=generations)
def test_a_request_alone_equals_naive_decoding(
    make_bench: Callable[[], EngineBench],
    fresh_runner: ModelRunner,
    prompt: list[int],
    params: GenerationParams,
) -> None:
    bench = make_bench()
    expected = [
        NaiveDecoder(bench, fresh_runner).decode(prompt, params, index)
        for index in range(params.slots_needed)
    ]
    assert bench.tokens(prompt, params) == expected
    bench.assert_all_free()


@dataclass(frozen=True)
class Client:
    """Request with its steps of arrival and of cancellation."""

    prompt: list[int]
    params: GenerationParams
    arrives: int
    cancelled: int | None


clients = st.builds(
    Client,
    prompt=prompts,
    params=st.one_of(generations, generations, beams),
    arrives=st.integers(0, 30),
    cancelled=st.one_of(st.none(), st.none(), st.integers(0, 40)),
)


@settings(max_examples=examples(60))
@given(mix=st.lists(clients, min_size=2, max_size=8))
def test_a_request_in_any_mix_equals_the_request_alone(
    make_bench: Callable[[], EngineBench], mix: list[Client]
) -> None:
    expected = [make_bench().tokens(client.prompt, client.params) for client in mix]
    bench = make_bench()
    tasks: dict[int, Task] = {}
    for step in range(2000):
        for i, client in enumerate(mix):
            if client.arrives == step:
                tasks[i] = bench.add(bench.task(client.prompt, client.params))
            if i in tasks and client.cancelled is not None and step >= client.cancelled:
                bench.engine.abort(tasks[i].request.id)
        bench.step()
        if len(tasks) == len(mix) and not bench.engine.busy:
            break
    for i, client in enumerate(mix):
        if bench.events[tasks[i].request.id]:
            produced = [list(each.token_ids) for each in bench.result(tasks[i]).candidates]
            assert produced == expected[i]
        else:
            assert client.cancelled is not None
    bench.assert_all_free()


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 16, 17, 60])
def test_greedy_decoding_equals_transformers(
    bench: EngineBench, reference: GPT2LMHeadModel, length: int
) -> None:
    prompt = np.random.default_rng(length).integers(1, 300, length).tolist()
    with torch.no_grad():
        output = reference.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=30, pad_token_id=EOS
        )
    assert bench.tokens(prompt, greedy(30)) == [output[0, length:].tolist()]


def test_the_context_can_be_filled_to_the_last_position(
    bench: EngineBench, reference: GPT2LMHeadModel
) -> None:
    params = greedy(CONTEXT - len(PROMPT), ignore_eos=True)
    with torch.no_grad():
        tokens = torch.tensor([PROMPT])
        while tokens.shape[1] < CONTEXT:
            best = reference(tokens).logits[0, -1].argmax()
            tokens = torch.cat([tokens, best[None, None]], dim=1)
    assert bench.tokens(PROMPT, params) == [tokens[0, len(PROMPT) :].tolist()]


@pytest.mark.parametrize(
    "params",
    [
        greedy(10),
        GenerationParams(
            decoding=SamplingParams(temperature=0.5, top_k=3, seed=1, repetition_penalty=1.5),
            stopping=StoppingParams(max_new_tokens=10),
        ),
        GenerationParams(
            decoding=SamplingParams(seed=1),
            constraint=ConstraintParams(ConstraintKind.CHOICES, ("my new address!", "my order!")),
            stopping=StoppingParams(max_new_tokens=40),
        ),
        GenerationParams(
            decoding=SamplingParams(seed=1, n=3),
            constraint=ConstraintParams(
                ConstraintKind.CHOICES, ("my new address!", "my new order")
            ),
            stopping=StoppingParams(max_new_tokens=40),
        ),
        GenerationParams(
            decoding=GREEDY,
            constraint=ConstraintParams(ConstraintKind.CHOICES, ("my new address",)),
            stopping=StoppingParams(max_new_tokens=40),
        ),
        GenerationParams(
            decoding=BeamSearchParams(num_beams=3, num_return_sequences=3),
            stopping=StoppingParams(max_new_tokens=10),
        ),
    ],
    ids=["greedy", "sampled", "constrained", "partly forced, forked", "all forced", "beams"],
)
def test_logprobs_equal_those_of_transformers(
    bench: EngineBench, reference: GPT2LMHeadModel, params: GenerationParams
) -> None:
    params = replace(params, output=OutputParams(logprobs=True, top_logprobs=3))
    for candidate in bench.run(PROMPT, params).candidates:
        tokens = list(candidate.token_ids)
        expected = reference_logprobs(reference, PROMPT + tokens)[len(PROMPT) - 1 :]
        assert [each.chosen.token_id for each in candidate.logprobs] == tokens
        for at, position in enumerate(candidate.logprobs):
            best = expected[at].topk(3)
            assert position.chosen.logprob == pytest.approx(
                float(expected[at, tokens[at]]), abs=1e-3
            )
            assert [each.token_id for each in position.top] == best.indices.tolist()
        total = sum(each.chosen.logprob or 0 for each in candidate.logprobs)
        assert candidate.cumulative_logprob == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize(
    "decoding", [GREEDY, SamplingParams(n=2, seed=3), BeamSearchParams(num_beams=2)]
)
def test_prompt_logprobs_cover_the_prompt(
    bench: EngineBench, reference: GPT2LMHeadModel, decoding: SamplingParams | BeamSearchParams
) -> None:
    prompt = PROMPT * 4
    params = GenerationParams(
        decoding=decoding,
        stopping=StoppingParams(max_new_tokens=2),
        output=OutputParams(prompt_logprobs=True, top_logprobs=1),
    )
    positions = bench.run(prompt, params).prompt_logprobs
    expected = reference_logprobs(reference, prompt)
    assert [each.chosen.token_id for each in positions] == prompt
    assert positions[0].chosen.logprob is None
    for at in range(1, len(prompt)):
        logprob = positions[at].chosen.logprob
        assert logprob == pytest.approx(float(expected[at - 1, prompt[at]]), abs=1e-3)
        assert positions[at].top[0].token_id == int(expected[at - 1].argmax())


def test_the_reported_seed_reproduces_the_tokens(bench: EngineBench) -> None:
    drawn = bench.run(PROMPT, GenerationParams(decoding=SamplingParams()))
    again = bench.run(PROMPT, GenerationParams(decoding=SamplingParams(seed=drawn.seed)))
    other = bench.run(PROMPT, GenerationParams(decoding=SamplingParams(seed=drawn.seed + 1)))
    assert again.candidates[0].token_ids == drawn.candidates[0].token_ids
    assert other.candidates[0].token_ids != drawn.candidates[0].token_ids


def test_candidates_of_one_prompt_differ(bench: EngineBench) -> None:
    result = bench.run(PROMPT, GenerationParams(decoding=SamplingParams(n=4, seed=1)))
    assert len({candidate.token_ids for candidate in result.candidates}) == 4


def test_usage_counts_tokens(bench: EngineBench) -> None:
    params = GenerationParams(
        decoding=SamplingParams(n=2, seed=1),
        stopping=StoppingParams(max_new_tokens=7, ignore_eos=True),
    )
    usage = bench.run(PROMPT, params).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.forced_tokens) == (5, 14, 0)
