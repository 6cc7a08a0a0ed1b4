"""Left truncation of prompts, compared with transformers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.engine_bench import CONTEXT, EOS, EngineBench
from tests.support.examples import examples
from transformers import PreTrainedTokenizerFast

from gpt2flow.server.config.settings import RequestLimits
from gpt2flow.server.errors import InvalidRequestError
from gpt2flow.server.generation.prompts import Prompt, PromptEncoder
from gpt2flow.server.limits import Limits
from gpt2flow.server.params import GenerationParams, OutputParams, SamplingParams, StoppingParams
from gpt2flow.server.tokenizer.tokenizer import Tokenizer

GREEDY = SamplingParams(temperature=0)
# Special tokens before and after a text, as TemplateProcessing puts them.
AROUND = [(0, 0), (1, 0), (0, 1), (2, 1)]
WORDS = ["Where is ", "my order? ", "保温杯", "😀 ", "<|user|>", "  ", "naïve\n"]


def truncating(max_new_tokens: int | None = 8, **output: Any) -> GenerationParams:
    """Return greedy parameters that truncate the prompt."""
    return GenerationParams(
        decoding=GREEDY,
        stopping=StoppingParams(max_new_tokens=max_new_tokens, ignore_eos=True),
        output=OutputParams(**output),
        truncate_prompt=True,
    )


def template(before: int, after: int) -> dict[str, Any]:
    """Return a post-processor that puts end-of-text tokens around a text."""
    special = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [*[special] * before, text, *[special] * after],
        "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "<|endoftext|>": {"id": "<|endoftext|>", "ids": [EOS], "tokens": ["<|endoftext|>"]}
        },
    }


@pytest.fixture(scope="module", params=AROUND, ids=str)
def tokenizers(
    request: pytest.FixtureRequest, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, PreTrainedTokenizerFast]:
    """Tokenizers of the server and of transformers, with special tokens around texts."""
    content = json.loads((bundle / "tokenizer.json").read_text(encoding="utf-8"))
    if request.param != (0, 0):
        content["post_processor"] = template(*request.param)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(path), truncation_side="left")
    return Tokenizer.from_file(path), theirs


@settings(max_examples=examples(100))
@given(
    text=st.lists(st.sampled_from(WORDS), min_size=1, max_size=40).map("".join),
    room=st.integers(4, 60),
    add=st.booleans(),
)
def test_truncated_text_equals_transformers(
    tokenizers: tuple[Tokenizer, PreTrainedTokenizerFast],
    limits: Limits,
    text: str,
    room: int,
    *,
    add: bool,
) -> None:
    ours, theirs = tokenizers
    encoder = PromptEncoder(ours, limits, None)
    prompt = Prompt("prompt", text, add_special_tokens=add)
    ids = encoder.encode(prompt)
    if len(ids) > room:
        ids = encoder.truncate(prompt, ids, room)
    assert ids == theirs(text, truncation=True, max_length=room, add_special_tokens=add).input_ids


@settings(max_examples=examples(40))
@given(st.lists(st.integers(1, 300), min_size=1, max_size=200), st.integers(1, CONTEXT - 1))
def test_a_prompt_of_ids_keeps_its_last(
    make_bench: Callable[[], EngineBench], ids: list[int], max_new_tokens: int
) -> None:
    bench = make_bench()
    [resolved] = bench.factory.resolve([Prompt("prompt", ids)], truncating(max_new_tokens))
    room = CONTEXT - max_new_tokens
    assert resolved.ids == ids[-room:]
    assert resolved.truncated_tokens == max(len(ids) - room, 0)


def test_the_rest_is_as_if_only_the_kept_tokens_were_sent(bench: EngineBench) -> None:
    ids = [1 + i * 7 % 300 for i in range(250)]
    params = truncating(8, prompt_logprobs=True, echo=True)
    long, short = bench.run(ids, params), bench.run(ids[-CONTEXT + 8 :], params)
    assert long.candidates == short.candidates
    assert long.prompt_logprobs == short.prompt_logprobs
    assert len(long.prompt_logprobs) == long.usage.prompt_tokens == CONTEXT - 8
    assert long.usage.truncated_tokens == 250 - CONTEXT + 8
    assert short.usage.truncated_tokens == 0


def test_the_echo_of_a_text_starts_with_what_was_kept(bench: EngineBench) -> None:
    text = "Where is my order? " * 40 + "<|user|>"
    params = truncating(4, echo=True)
    [resolved] = bench.factory.resolve([Prompt("prompt", text)], params)
    [candidate] = bench.run(text, params).candidates
    kept = bench.tokenizer.decode(resolved.ids)
    assert text.endswith(kept)
    assert candidate.text.startswith(kept)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_prompt_that_fits_is_left_as_it_is(bench: EngineBench, *, streamed: bool) -> None:
    params = truncating(4)
    task = bench.add(bench.task("Where is my order?", params, stream=streamed))
    plain = bench.add(bench.task("Where is my order?", replace(params, truncate_prompt=False)))
    bench.finish()
    assert bench.result(task).candidates == bench.result(plain).candidates
    assert bench.result(task).usage.truncated_tokens == 0


def test_without_max_new_tokens_the_default_has_room(bench: EngineBench, limits: Limits) -> None:
    ids = [5] * CONTEXT
    [resolved] = bench.factory.resolve([Prompt("prompt", ids)], truncating(None))
    assert len(resolved.ids) == CONTEXT - limits.default_max_new_tokens
    assert resolved.max_new_tokens == limits.default_max_new_tokens


def test_the_default_has_at_most_half_of_the_context(
    bench: EngineBench, limits: Limits, tokenizer: Tokenizer
) -> None:
    del tokenizer
    large = replace(limits, default_max_new_tokens=CONTEXT)
    factory = replace(bench, limits=large, events={}).factory
    [resolved] = factory.resolve([Prompt("prompt", [5] * 300)], truncating(None))
    assert (len(resolved.ids), resolved.max_new_tokens) == (CONTEXT // 2, CONTEXT // 2)


@pytest.mark.parametrize("most", [CONTEXT, CONTEXT + 5])
def test_new_tokens_that_leave_no_room_are_refused(bench: EngineBench, most: int) -> None:
    with pytest.raises(InvalidRequestError, match=r"must leave at least 1 of .* context of 96"):
        bench.factory.resolve([Prompt("prompt", [5] * 300)], truncating(most))


def test_a_text_beyond_the_limit_is_refused_before_it_is_encoded(
    bench: EngineBench, limits: Limits
) -> None:
    small = replace(limits, requests=RequestLimits(tokenize_bytes=1000))
    factory = replace(bench, limits=small, events={}).factory
    match = "prompt: has 1001 bytes, must have at most 1000 to be truncated"
    with pytest.raises(InvalidRequestError, match=match):
        factory.resolve([Prompt("prompt", "x" * 1001)], truncating(8))
    factory.resolve([Prompt("prompt", "x" * 1000)], truncating(8))


def test_a_long_prompt_is_refused_unless_truncation_is_requested(bench: EngineBench) -> None:
    params = replace(truncating(8), truncate_prompt=False)
    with pytest.raises(InvalidRequestError, match="together exceed"):
        bench.factory.resolve([Prompt("prompt", [5] * 300)], params)
