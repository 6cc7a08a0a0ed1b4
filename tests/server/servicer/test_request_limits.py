"""Request limits: errors name the field, its size and the limit."""

import threading

import grpc
import pytest
from tests.support.engine_bench import CONTEXT
from tests.support.running_server import PROMPT, RunningServer, bad_fields, failure, greedy

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server.config.settings import RequestLimits
from gpt2flow.server.errors import ConfigError
from gpt2flow.server.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.process

LIMITS = RequestLimits()


@pytest.mark.parametrize(
    "options,field,size,limit",
    [
        (
            pb.GenerationOptions(stopping=pb.StoppingCriteria(stop_strings=["x"] * 33)),
            "options.stopping.stop_strings",
            "33 entries",
            32,
        ),
        (
            pb.GenerationOptions(stopping=pb.StoppingCriteria(stop_strings=["é" * 513])),
            "options.stopping.stop_strings[0]",
            "1026 bytes",
            1024,
        ),
        (
            pb.GenerationOptions(stopping=pb.StoppingCriteria(stop_token_ids=[1] * 1025)),
            "options.stopping.stop_token_ids",
            "1025 entries",
            1024,
        ),
        (
            pb.GenerationOptions(sampling=pb.SamplingParams(bad_words=["x"] * 257)),
            "options.sampling.bad_words",
            "257 entries",
            256,
        ),
        (
            pb.GenerationOptions(sampling=pb.SamplingParams(bad_words=["x" * 1025])),
            "options.sampling.bad_words[0]",
            "1025 bytes",
            1024,
        ),
        (
            pb.GenerationOptions(
                sampling=pb.SamplingParams(logit_bias=[pb.LogitBias(token_id=1)] * 1025)
            ),
            "options.sampling.logit_bias",
            "1025 entries",
            1024,
        ),
        (
            pb.GenerationOptions(constraint=pb.Constraint(regex="ü" * 2**17 + "a")),
            "options.constraint.regex",
            "262145 bytes",
            262144,
        ),
        (
            pb.GenerationOptions(
                constraint=pb.Constraint(choices=pb.Choices(values=map(str, range(4097))))
            ),
            "options.constraint.choices.values",
            "4097 entries",
            4096,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_field_beyond_its_limit_is_named(
    running: RunningServer, options: pb.GenerationOptions, field: str, size: str, limit: int
) -> None:
    code, text, detail = await failure(
        running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=options))
    )
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert bad_fields(detail) == [field]
    assert f"{field}: has {size}, must have at most {limit}" in text


async def test_the_number_of_prompts_is_limited(running: RunningServer) -> None:
    request = pb.GenerateRequest(prompts=[PROMPT] * (LIMITS.prompts + 1), options=greedy(1))
    code, text, detail = await failure(running.stub.Generate(request))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert bad_fields(detail) == ["prompts"]
    assert "has 257 entries, must have at most 256" in text


async def test_the_number_of_continuations_is_limited(running: RunningServer) -> None:
    continuations = [PROMPT] * (LIMITS.continuations + 1)
    code, _, detail = await failure(
        running.stub.Score(pb.ScoreRequest(prompt=PROMPT, continuations=continuations))
    )
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert bad_fields(detail) == ["continuations"]


async def test_a_text_that_cannot_fit_is_refused_untokenized(
    running: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, encoded = Tokenizer.encode, list[str]()

    def record(tokenizer: Tokenizer, text: str, **options: bool) -> list[int]:
        encoded.append(text)
        return encode(tokenizer, text, **options)

    monkeypatch.setattr(Tokenizer, "encode", record)
    tokenizer = running.model.tokenizer
    longest = max(len(tokenizer.piece(i)) for i in range(tokenizer.vocabulary_size))
    long = pb.Prompt(text="x" * (longest * CONTEXT + 1))
    code, text, detail = await failure(
        running.stub.Generate(pb.GenerateRequest(prompts=[long, PROMPT], options=greedy(5)))
    )
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert bad_fields(detail) == ["options.stopping.max_new_tokens"]
    assert text == (
        f"options.stopping.max_new_tokens: prompt (at least {CONTEXT + 1} tokens) and "
        f"max_new_tokens (5) together exceed the model's context of {CONTEXT} tokens"
    )
    code, text, detail = await failure(
        running.stub.Score(pb.ScoreRequest(prompt=PROMPT, continuations=[PROMPT, long]))
    )
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert bad_fields(detail) == ["continuations[1]"]
    assert f"continuation (at least {CONTEXT + 1})" in text
    assert encoded == [PROMPT.text]


async def test_a_long_text_is_not_tokenized_by_the_event_loop(
    running: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, threads = Tokenizer.encode, set[int]()

    def record(tokenizer: Tokenizer, text: str, **options: bool) -> list[int]:
        threads.add(threading.get_ident())
        return encode(tokenizer, text, **options)

    monkeypatch.setattr(Tokenizer, "encode", record)
    long = pb.Prompt(text="x" * 1025)
    await failure(running.stub.Generate(pb.GenerateRequest(prompts=[long], options=greedy(5))))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_the_size_of_a_text_to_tokenize_is_limited(running: RunningServer) -> None:
    limit = LIMITS.tokenize_bytes
    request = pb.TokenizeRequest(text="é" * (limit // 2) + "a")
    code, text, detail = await failure(running.stub.Tokenize(request))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert bad_fields(detail) == ["text"]
    assert text == f"text: has {limit + 1} bytes, must have at most {limit}"


async def test_the_number_of_ids_to_detokenize_is_limited(running: RunningServer) -> None:
    limit = LIMITS.tokenize_bytes
    request = pb.DetokenizeRequest(tokens=pb.TokenIds(ids=[5] * (limit + 1)))
    code, text, detail = await failure(running.stub.Detokenize(request))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert bad_fields(detail) == ["tokens.ids"]
    assert text == f"tokens.ids: has {limit + 1} entries, must have at most {limit}"


async def test_the_size_of_a_message_is_limited(running: RunningServer) -> None:
    prompt = pb.Prompt(text="x" * LIMITS.message_bytes)
    code, text, _ = await failure(running.stub.Generate(pb.GenerateRequest(prompts=[prompt])))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(LIMITS.message_bytes) in text
    response = await running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=greedy(1)))
    assert response.results


async def test_get_model_reports_the_limits(running: RunningServer) -> None:
    limits = (await running.stub.GetModel(pb.GetModelRequest())).model.limits
    reported = {field.name: value for field, value in limits.ListFields()}
    renamed = {
        "beams": "max_beams",
        "candidates": "max_candidates",
        "grammar_seconds": "max_grammar_ms",
    }
    for each in RequestLimits.model_fields:
        name = renamed.get(each, f"max_{each}")
        assert reported[name] > 0
    assert reported["max_choices"] == LIMITS.choices
    assert reported["max_grammar_ms"] == 2000


@pytest.mark.parametrize("name", list(RequestLimits.model_fields))
def test_no_limit_may_be_zero(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is 0, must be in"):
        RequestLimits(**{name: 0})
