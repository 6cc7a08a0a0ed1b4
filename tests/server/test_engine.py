"""The engine gives what a naive decode gives, whatever else it runs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.server.conftest import CONTEXT, EOS, SLOTS, Bench
from transformers import GPT2LMHeadModel

from gpt2flow.server.constraint import Constraint
from gpt2flow.server.errors import EngineError, InvalidRequestError, TimeLimitError
from gpt2flow.server.generation.task import Task
from gpt2flow.server.logits import Floats
from gpt2flow.server.model_runner import ModelRunner
from gpt2flow.server.params import (
    BeamSearchParams,
    ConstraintKind,
    ConstraintParams,
    GenerationParams,
    OutputParams,
    SamplingParams,
    StoppingParams,
)
from gpt2flow.server.results import Delta, GenerationResult
from gpt2flow.server.sampler import Sampler, make_rng, process
from gpt2flow.server.sequence import FinishReason
from gpt2flow.server.task_factory import Arrival, Prompt

GREEDY = SamplingParams(temperature=0)
PROMPT = [40, 88, 120, 7, 301]


def greedy(max_new_tokens: int = 12, **stopping: Any) -> GenerationParams:
    return GenerationParams(
        decoding=GREEDY, stopping=StoppingParams(max_new_tokens=max_new_tokens, **stopping)
    )


@dataclass
class Naive:
    """Decodes one candidate by running the whole sequence again for every token."""

    bench: Bench

    def logits(self, tokens: Sequence[int]) -> Floats:
        last = len(tokens) - 1
        values: Floats = self.bench.runner.run_chunk(SLOTS - 1, tokens, 0, [last])[0]
        return values

    def decode(self, prompt: Sequence[int], params: GenerationParams, index: int = 0) -> list[int]:
        task = self.bench.task(prompt, params)
        generation = task._generation  # type: ignore[attr-defined]
        assert isinstance(params.decoding, SamplingParams)
        sampler = Sampler(params.decoding, generation.processors)
        rng, constraint = make_rng(generation.seed, index), generation.constraint
        tokens = list(prompt)
        while True:
            forced = constraint.forced() if constraint else []
            for token in forced:
                tokens.append(token)
                if self.ends(tokens[len(prompt) :], generation, constraint):
                    return tokens[len(prompt) :]
            allowed = constraint.allowed() if constraint else None
            token = sampler.choose(self.logits(tokens), tokens, len(prompt), rng, allowed)
            if token is None:
                return tokens[len(prompt) :]
            tokens.append(token)
            if self.ends(tokens[len(prompt) :], generation, constraint):
                return tokens[len(prompt) :]

    def ends(self, produced: list[int], generation: Any, constraint: Constraint | None) -> bool:
        stopping, token = generation.params.stopping, produced[-1]
        if token in stopping.stop_token_ids:
            return True
        if token == EOS and (constraint is not None or not stopping.ignore_eos):
            return True
        if len(produced) >= stopping.min_new_tokens:
            text = self.bench.tokenizer.decode(produced)
            if any(stop in text for stop in stopping.stop_strings):
                return True
        if constraint is not None:
            constraint.advance(token)
            if constraint.complete:
                return True
        return len(produced) >= int(generation.max_new_tokens)


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


@settings(deadline=None, max_examples=80)
@given(prompt=prompts, params=generations)
def test_alone_it_equals_the_naive_decode(
    make_bench: Callable[[], Bench], prompt: list[int], params: GenerationParams
) -> None:
    bench = make_bench()
    expected = [Naive(bench).decode(prompt, params, index) for index in range(params.width)]
    assert bench.tokens(prompt, params) == expected
    bench.assert_all_free()


@dataclass(frozen=True)
class Client:
    """A request that comes at a step, and may be dropped at a later one."""

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


@settings(deadline=None, max_examples=60)
@given(mix=st.lists(clients, min_size=2, max_size=8))
def test_in_any_mix_it_gives_what_it_gives_alone(
    make_bench: Callable[[], Bench], mix: list[Client]
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
def test_greedy_equals_transformers(bench: Bench, reference: GPT2LMHeadModel, length: int) -> None:
    prompt = np.random.default_rng(length).integers(1, 300, length).tolist()
    with torch.no_grad():
        output = reference.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=30, pad_token_id=EOS
        )
    assert bench.tokens(prompt, greedy(30)) == [output[0, length:].tolist()]


def test_the_context_can_be_filled_to_the_last_token(
    bench: Bench, reference: GPT2LMHeadModel
) -> None:
    params = greedy(CONTEXT - len(PROMPT), ignore_eos=True)
    with torch.no_grad():
        tokens = torch.tensor([PROMPT])
        while tokens.shape[1] < CONTEXT:
            best = reference(tokens).logits[0, -1].argmax()
            tokens = torch.cat([tokens, best[None, None]], dim=1)
    assert bench.tokens(PROMPT, params) == [tokens[0, len(PROMPT) :].tolist()]


def reference_logprobs(model: GPT2LMHeadModel, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logprobs: torch.Tensor = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    return logprobs


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
def test_logprobs_are_those_of_the_model(
    bench: Bench, reference: GPT2LMHeadModel, params: GenerationParams
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
    bench: Bench, reference: GPT2LMHeadModel, decoding: SamplingParams | BeamSearchParams
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


def test_a_seed_gives_the_same_tokens_and_is_told(bench: Bench) -> None:
    drawn = bench.run(PROMPT, GenerationParams(decoding=SamplingParams()))
    again = bench.run(PROMPT, GenerationParams(decoding=SamplingParams(seed=drawn.seed)))
    other = bench.run(PROMPT, GenerationParams(decoding=SamplingParams(seed=drawn.seed + 1)))
    assert again.candidates[0].token_ids == drawn.candidates[0].token_ids
    assert other.candidates[0].token_ids != drawn.candidates[0].token_ids


def test_candidates_of_one_prompt_differ(bench: Bench) -> None:
    result = bench.run(PROMPT, GenerationParams(decoding=SamplingParams(n=4, seed=1)))
    assert len({candidate.token_ids for candidate in result.candidates}) == 4


def test_usage_counts_tokens(bench: Bench) -> None:
    params = GenerationParams(
        decoding=SamplingParams(n=2, seed=1),
        stopping=StoppingParams(max_new_tokens=7, ignore_eos=True),
    )
    usage = bench.run(PROMPT, params).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.forced_tokens) == (5, 14, 0)


# --- Stopping -------------------------------------------------------------------------


def unstopped(bench: Bench, count: int = 12) -> list[int]:
    [tokens] = bench.tokens(PROMPT, greedy(count, ignore_eos=True))
    return tokens


def finish(bench: Bench, params: GenerationParams) -> tuple[FinishReason, list[int], str]:
    [candidate] = bench.run(PROMPT, params).candidates
    return candidate.finish_reason, list(candidate.token_ids), candidate.text


def test_length(bench: Bench) -> None:
    reason, tokens, text = finish(bench, greedy(12))
    assert (reason, tokens) == (FinishReason.LENGTH, unstopped(bench))
    assert text == bench.tokenizer.decode(tokens)


def test_a_stop_id_ends_and_is_not_text(bench: Bench) -> None:
    tokens = unstopped(bench)
    stop = tokens[5]
    first = tokens.index(stop)
    reason, produced, text = finish(bench, greedy(12, stop_token_ids=(stop,)))
    assert (reason, produced) == (FinishReason.STOP, tokens[: first + 1])
    assert text == bench.tokenizer.decode(tokens[:first])


def test_min_new_tokens_hold_stop_ids_back(bench: Bench) -> None:
    stop = unstopped(bench)[0]
    _, produced, _ = finish(bench, greedy(12, stop_token_ids=(stop,), min_new_tokens=6))
    assert stop not in produced[:6]
    assert len(produced) >= 6


def eos_params(**options: Any) -> GenerationParams:
    decoding = SamplingParams(temperature=0, logit_bias=((EOS, 100.0),))
    return GenerationParams(decoding=decoding, stopping=StoppingParams(max_new_tokens=4, **options))


def test_end_of_text_ends_and_is_not_text(bench: Bench) -> None:
    assert finish(bench, eos_params()) == (FinishReason.EOS, [EOS], "")


def test_end_of_text_can_be_ignored(bench: Bench) -> None:
    reason, tokens, text = finish(bench, eos_params(ignore_eos=True))
    assert (reason, tokens) == (FinishReason.LENGTH, [EOS] * 4)
    assert text == "<|endoftext|>" * 4


def test_min_new_tokens_hold_end_of_text_back(bench: Bench) -> None:
    reason, tokens, _ = finish(bench, eos_params(min_new_tokens=3))
    assert reason is FinishReason.EOS
    assert tokens.index(EOS) == 3


@pytest.mark.parametrize("decoding", [GREEDY, BeamSearchParams(num_beams=1)])
def test_a_stop_string_ends_and_is_not_text(
    bench: Bench, decoding: SamplingParams | BeamSearchParams
) -> None:
    whole = bench.tokenizer.decode(unstopped(bench))
    stop = whole[3:6]
    params = replace(greedy(12, stop_strings=("never", stop), ignore_eos=True), decoding=decoding)
    [candidate] = bench.run(PROMPT, params).candidates
    assert candidate.finish_reason is FinishReason.STOP
    assert candidate.stop_string == stop
    assert candidate.text == whole.partition(stop)[0]


def test_min_new_tokens_hold_stop_strings_back(bench: Bench) -> None:
    tokens = unstopped(bench)
    stop = bench.tokenizer.decode(tokens)[1:3]
    stopping = {"stop_strings": (stop,), "ignore_eos": True}
    _, early, _ = finish(bench, greedy(12, **stopping))
    _, late, text = finish(bench, greedy(12, **stopping, min_new_tokens=len(early) + 3))
    assert late[: len(early)] == early
    assert len(late) >= len(early) + 3
    assert stop in text


def test_a_bad_word_is_forbidden_with_and_without_a_space_before_it(bench: Bench) -> None:
    encode = bench.tokenizer.encode
    word = next(word for word in ("it", "my", "or", "new") if len(encode(f" {word}")) == 1)
    params = GenerationParams(decoding=SamplingParams(bad_words=(word,)))
    processors = bench.task(PROMPT, params)._generation.processors  # type: ignore[attr-defined]
    for text in (word, f" {word}"):
        *start, last = encode(text)
        scores = np.zeros(bench.limits.vocabulary_size, np.float32)
        assert process(processors, scores, [*PROMPT, *start], len(PROMPT))[last] == -np.inf


def test_echo_starts_the_text(bench: Bench) -> None:
    params = replace(greedy(3), output=OutputParams(echo=True))
    [candidate] = bench.run("Where is", params).candidates
    plain = bench.run("Where is", greedy(3)).candidates[0]
    assert candidate.text == "Where is" + plain.text
    assert candidate.token_ids == plain.token_ids
    by_ids = bench.run(bench.tokenizer.encode("Where is"), params)
    assert by_ids.candidates[0].text == candidate.text


# --- Constraints ----------------------------------------------------------------------


def test_a_complete_output_ends_at_once(bench: Bench) -> None:
    params = replace(
        greedy(60), constraint=ConstraintParams(ConstraintKind.CHOICES, ("my order", "my cup"))
    )
    reason, tokens, text = finish(bench, params)
    assert reason is FinishReason.CONSTRAINT
    assert text in {"my order", "my cup"}
    assert EOS not in tokens


def test_a_constraint_may_end_although_end_of_text_is_ignored(bench: Bench) -> None:
    params = replace(
        eos_params(ignore_eos=True), constraint=ConstraintParams(ConstraintKind.REGEX, ("QZ*",))
    )
    assert finish(bench, params) == (FinishReason.EOS, [*bench.tokenizer.encode("Q"), EOS], "Q")


def test_candidates_share_what_is_forced(bench: Bench) -> None:
    params = GenerationParams(
        decoding=SamplingParams(n=3, seed=1),
        stopping=StoppingParams(max_new_tokens=40),
        constraint=ConstraintParams(ConstraintKind.CHOICES, ("my new address",)),
    )
    first, *others = bench.run(PROMPT, params).candidates
    assert first.text == "my new address"
    assert others == [first, first]


def test_candidates_part_in_the_middle_of_a_character(bench: Bench) -> None:
    # The first two bytes of these characters are the same.
    choices = ("戀", "我", "戒")
    params = GenerationParams(
        decoding=SamplingParams(n=4, seed=1, temperature=5.0),
        stopping=StoppingParams(max_new_tokens=40),
        constraint=ConstraintParams(ConstraintKind.CHOICES, choices),
    )
    result = bench.run(PROMPT, params)
    assert result.usage.forced_tokens > 0
    assert {candidate.text for candidate in result.candidates} <= set(choices)


@pytest.mark.parametrize("num_beams", [0, 1, 3])
def test_the_constraint_wins_over_penalties(bench: Bench, num_beams: int) -> None:
    decoding = (
        BeamSearchParams(num_beams=num_beams, no_repeat_ngram_size=1)
        if num_beams
        else SamplingParams(temperature=0, no_repeat_ngram_size=1)
    )
    constraint = ConstraintParams(ConstraintKind.REGEX, ("(x|y){6}",))
    params = replace(greedy(20), decoding=decoding, constraint=constraint)
    reason, _, text = finish(bench, params)
    assert reason is FinishReason.CONSTRAINT
    assert len(text) == 6
    assert set(text) == {"x", "y"}


def test_forced_tokens_are_counted_and_cost_no_run_each(bench: Bench) -> None:
    text = "please send it to my new address"
    params = replace(greedy(60), constraint=ConstraintParams(ConstraintKind.CHOICES, (text,)))
    task = bench.add(bench.task([5], params))
    steps = 0
    while bench.engine.busy:
        bench.step()
        steps += 1
    usage = bench.result(task).usage
    assert bench.result(task).candidates[0].text == text
    assert usage.forced_tokens == usage.completion_tokens > 4
    assert steps <= 1 + usage.completion_tokens // 8


def test_a_grammar_that_grows_too_complex_ends_its_request_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt2flow.server.constraint import GrammarError

    constrained = bench.add(
        bench.task(
            PROMPT,
            replace(greedy(60), constraint=ConstraintParams(ConstraintKind.REGEX, ("[ab]{50}",))),
        )
    )
    other = bench.add(bench.task(PROMPT, greedy(12)))

    def too_complex(_self: Constraint) -> None:
        raise GrammarError("too complex")

    monkeypatch.setattr(Constraint, "allowed", too_complex)
    bench.finish()
    outcome = bench.outcome(constrained)
    assert isinstance(outcome, InvalidRequestError)
    assert outcome.violations[0].field == "options.constraint"
    assert list(bench.result(other).candidates[0].token_ids) == unstopped(bench)


# --- Streaming ------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(prompt=prompts, params=generations, echo=st.booleans())
def test_deltas_add_up_to_the_result(
    make_bench: Callable[[], Bench],
    prompt: list[int],
    params: GenerationParams,
    echo: bool,  # noqa: FBT001 - drawn by Hypothesis
) -> None:
    output = OutputParams(logprobs=True, token_ids=True, echo=echo)
    bench = make_bench()
    task = bench.add(bench.task(prompt, replace(params, output=output), stream=True))
    bench.finish()
    result = bench.result(task)
    deltas = [each.content for each in bench.events[task.request.id][:-1]]
    for index, candidate in enumerate(result.candidates):
        own = [each for each in deltas if isinstance(each, Delta) and each.index == index]
        assert "".join(each.text for each in own) == candidate.text
        assert tuple(token for each in own for token in each.token_ids) == candidate.token_ids
        assert tuple(entry for each in own for entry in each.logprobs) == candidate.logprobs


def test_text_comes_as_it_is_decoded(bench: Bench) -> None:
    task = bench.add(bench.task(PROMPT, greedy(10, ignore_eos=True), stream=True))
    bench.finish()
    assert len(bench.events[task.request.id]) > 5


def test_without_streaming_there_is_one_event(bench: Bench) -> None:
    task = bench.add(bench.task(PROMPT, greedy(10)))
    bench.finish()
    assert len(bench.events[task.request.id]) == 1


# --- Time, failure, cancellation ------------------------------------------------------


def test_a_deadline_ends_a_running_request(bench: Bench) -> None:
    task = bench.add(bench.task(PROMPT, greedy(50, ignore_eos=True), deadline=5.0))
    other = bench.add(bench.task(PROMPT, greedy(12)))
    bench.step()
    bench.now = 5.0
    bench.step()
    assert isinstance(bench.outcome(task), TimeLimitError)
    bench.finish()
    assert list(bench.result(other).candidates[0].token_ids) == unstopped(bench)


def test_a_deadline_ends_a_waiting_request(bench: Bench) -> None:
    for _ in range(SLOTS):
        bench.add(bench.task(PROMPT, greedy(20, ignore_eos=True)))
    waiting = bench.add(bench.task(PROMPT, greedy(5), deadline=1.0))
    bench.step()
    bench.now = 1.0
    bench.step()
    assert isinstance(bench.outcome(waiting), TimeLimitError)


@pytest.mark.parametrize(
    "decoding", [GREEDY, SamplingParams(n=2, seed=1), BeamSearchParams(num_beams=2)]
)
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_the_time_limit_leaves_what_there_is(
    bench: Bench, decoding: SamplingParams | BeamSearchParams, steps: int
) -> None:
    stopping = StoppingParams(
        max_new_tokens=50,
        ignore_eos=True,
        time_limit_seconds=2.0,
        return_partial_on_time_limit=True,
    )
    task = bench.add(bench.task(PROMPT, GenerationParams(decoding=decoding, stopping=stopping)))
    for _ in range(steps):
        bench.step()
    bench.now = 2.0
    bench.step()
    result = bench.result(task)
    assert result.timing.total == 2.0
    for candidate in result.candidates:
        assert candidate.finish_reason is FinishReason.TIME_LIMIT
        assert len(candidate.token_ids) == steps
        assert candidate.text == bench.tokenizer.decode(candidate.token_ids)
    expected = decoding.n if isinstance(decoding, SamplingParams) else 1
    assert len(result.candidates) == expected


def test_an_interrupted_run_of_forced_tokens_stays_consistent(bench: Bench) -> None:
    params = GenerationParams(
        decoding=GREEDY,
        stopping=StoppingParams(
            max_new_tokens=50, time_limit_seconds=2.0, return_partial_on_time_limit=True
        ),
        constraint=ConstraintParams(ConstraintKind.CHOICES, ("please send it to my new address",)),
        output=OutputParams(logprobs=True, token_ids=True),
    )
    task = bench.add(bench.task(PROMPT, params, stream=True))
    bench.step()
    bench.now = 2.0
    bench.step()
    [candidate] = bench.result(task).candidates
    assert [each.chosen.token_id for each in candidate.logprobs] == list(candidate.token_ids)


def test_timing_says_where_the_time_went(bench: Bench) -> None:
    task = bench.task([*PROMPT, *PROMPT], greedy(3, ignore_eos=True))
    bench.now = 1.0
    bench.add(task)
    while bench.engine.busy:
        bench.step()
        bench.now += 1.0
    timing = bench.result(task).timing
    # Two chunks of the prompt, the second with the first token; then two decode steps.
    assert (timing.queue, timing.prefill, timing.decode, timing.total) == (1, 1, 2, 4)


def test_an_aborted_request_frees_its_slots_and_says_nothing(bench: Bench) -> None:
    params = GenerationParams(decoding=SamplingParams(n=3, seed=1))
    task = bench.add(bench.task(PROMPT, params))
    bench.step()
    bench.step()
    assert bench.cache.free_slots < SLOTS
    bench.engine.abort(task.request.id)
    bench.engine.abort(task.request.id)
    assert not bench.engine.busy
    assert bench.events[task.request.id] == []
    bench.assert_all_free()


def test_a_failing_run_ends_the_requests_in_it_and_the_engine_lives_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = bench.add(bench.task(PROMPT, greedy(12)))
    waiting = bench.add(bench.task(PROMPT, GenerationParams(decoding=SamplingParams(n=6))))
    bench.step()

    def broken(*_args: Any) -> None:
        raise RuntimeError("no such luck")

    with monkeypatch.context() as patch:
        patch.setattr(ModelRunner, "decode", broken)
        bench.step()
    outcome = bench.outcome(task)
    assert isinstance(outcome, EngineError)
    assert isinstance(outcome.__cause__, RuntimeError)
    bench.finish()
    assert isinstance(bench.outcome(waiting), GenerationResult)


# --- Scores ---------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    prompt=prompts,
    continuations=st.lists(
        st.lists(st.integers(1, 300), min_size=1, max_size=20), min_size=1, max_size=4
    ),
)
def test_scores_are_those_of_the_model(
    make_bench: Callable[[], Bench],
    reference: GPT2LMHeadModel,
    prompt: list[int],
    continuations: list[list[int]],
) -> None:
    bench = make_bench()
    task = bench.factory.score(
        Prompt("prompt", tuple(prompt)),
        [Prompt("continuations", tuple(each)) for each in continuations],
        Arrival(0.0),
    )
    bench.add(task)
    other = bench.add(bench.task(PROMPT, greedy(12)))
    bench.finish()
    outcome: Any = bench.outcome(task)
    for score, continuation in zip(outcome.scores, continuations, strict=True):
        logprobs = reference_logprobs(reference, prompt + continuation)
        expected = [
            float(logprobs[len(prompt) + at - 1, token]) for at, token in enumerate(continuation)
        ]
        assert [each.token_id for each in score.tokens] == continuation
        assert [each.logprob for each in score.tokens] == pytest.approx(expected, abs=1e-3)
    assert list(bench.result(other).candidates[0].token_ids) == unstopped(make_bench())
    bench.assert_all_free()
