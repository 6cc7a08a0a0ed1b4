"""Completions of a real server, equal to what gRPC returns."""

import math
from typing import Any

import pytest
from tests.support.gateway_process import (
    PROMPT,
    RunningGateway,
    answered,
    contents,
    events,
    refusal,
)

from gpt2flow.client import BeamSearch, Client, Options, Sampling

pytestmark = pytest.mark.process

GREEDY = Sampling(temperature=0)
IDS = [1, 15, 3]


def texts(answer: dict[str, Any]) -> list[str]:
    return [choice["text"] for choice in answer["choices"]]


def test_an_answer_has_the_text_and_the_counts_of_grpc(
    gateway: RunningGateway, grpc_client: Client
) -> None:
    response = gateway.complete(max_tokens=40)
    answer = answered(response)
    expected = grpc_client.generate(PROMPT, Options(GREEDY, max_new_tokens=40))
    [choice] = answer["choices"]
    assert choice == {
        "index": 0,
        "text": expected.text,
        "logprobs": None,
        "finish_reason": "stop",
    }
    usage = expected.usage
    assert answer["usage"]["prompt_tokens"] == usage.prompt_tokens
    assert answer["usage"]["completion_tokens"] == usage.completion_tokens
    assert answer["usage"]["total_tokens"] == usage.prompt_tokens + usage.completion_tokens
    assert answer["object"] == "text_completion"
    assert answer["model"] == "shop"
    assert answer["system_fingerprint"] == expected.fingerprint
    assert answer["id"] == f"cmpl-{response.headers['x-request-id']}"


def test_a_repeated_prompt_comes_from_the_cache(gateway: RunningGateway) -> None:
    prompt = "<|state|>guest<|user|>a repeated prompt, all of whose tokens are cached<|act|>"
    first, second = (answered(gateway.complete(prompt))["usage"] for _ in range(2))
    assert second["prompt_tokens_details"]["cached_tokens"] == second["prompt_tokens"] - 1
    assert first["prompt_tokens"] == second["prompt_tokens"]


@pytest.mark.parametrize("prompt", [[PROMPT, "Hello"], [IDS, IDS[:2]], IDS])
def test_prompts_may_be_texts_and_token_ids(
    gateway: RunningGateway, grpc_client: Client, prompt: Any
) -> None:
    answer = answered(gateway.complete(prompt, max_tokens=4))
    prompts = [IDS] if prompt is IDS else prompt
    expected = grpc_client.generate_many(prompts, Options(GREEDY, max_new_tokens=4))
    assert texts(answer) == [each.text for each in expected]
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(prompts)))


def test_a_completion_has_sixteen_tokens_unless_told_otherwise(gateway: RunningGateway) -> None:
    answer = answered(gateway.complete(ignore_eos=True))
    assert answer["usage"]["completion_tokens"] == 16
    assert answer["choices"][0]["finish_reason"] == "length"


def test_choices_of_several_prompts_are_numbered(
    gateway: RunningGateway, grpc_client: Client
) -> None:
    fields = {"n": 2, "seed": 5, "temperature": 1, "max_tokens": 5}
    answer = answered(gateway.complete(["one", "two"], **fields))
    options = Options(Sampling(n=2, seed=5), max_new_tokens=5)
    expected = grpc_client.generate_many(["one", "two"], options)
    assert texts(answer) == [each.text for prompt in expected for each in prompt.candidates]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]


def test_a_stream_adds_up_to_the_answer(gateway: RunningGateway) -> None:
    fields: dict[str, Any] = {"n": 2, "seed": 5, "temperature": 1, "max_tokens": 9}
    prompts = ["one", "two", "three"]
    whole = answered(gateway.complete(prompts, **fields))
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = events(gateway.complete(prompts, **fields, **options))
    assert contents(chunks) == dict(enumerate(texts(whole)))
    *others, last = chunks
    assert last["choices"] == []
    assert last["usage"] | {"prompt_tokens_details": {}} == whole["usage"] | {
        "prompt_tokens_details": {}
    }
    assert all(chunk["usage"] is None for chunk in others)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert last["system_fingerprint"] == whole["system_fingerprint"]
    ends = [c["finish_reason"] for chunk in others for c in chunk["choices"] if c["finish_reason"]]
    assert len(ends) == len(whole["choices"])


def test_a_stream_has_no_usage_unless_asked(gateway: RunningGateway) -> None:
    chunks = events(gateway.complete(stream=True))
    assert all("usage" not in chunk for chunk in chunks)
    assert len(chunks) > 4


def test_best_of_returns_the_likeliest_by_beams(
    gateway: RunningGateway, grpc_client: Client
) -> None:
    answer = answered(gateway.complete(n=2, best_of=4, max_tokens=8))
    beams = BeamSearch(num_beams=4, num_return_sequences=2)
    expected = grpc_client.generate(PROMPT, Options(beams, max_new_tokens=8))
    assert texts(answer) == [each.text for each in expected.candidates]
    scores = [choice["beam_score"] for choice in answer["choices"]]
    assert scores == pytest.approx([each.beam_score for each in expected.candidates])
    chunks = events(gateway.complete(n=2, best_of=4, max_tokens=8, stream=True))
    assert contents(chunks) == dict(enumerate(texts(answer)))


def test_logprobs_are_those_of_grpc(gateway: RunningGateway, grpc_client: Client) -> None:
    answer = answered(gateway.complete(max_tokens=40, logprobs=2))
    options = Options(GREEDY, max_new_tokens=40, logprobs=True, top_logprobs=2)
    [candidate] = grpc_client.generate(PROMPT, options).candidates
    logprobs = answer["choices"][0]["logprobs"]
    assert logprobs["tokens"] == [each.token.decode() for each in candidate.logprobs]
    assert logprobs["token_logprobs"] == pytest.approx([e.logprob for e in candidate.logprobs])
    assert [set(top) for top in logprobs["top_logprobs"]] == [
        {other.token.decode() for other in each.top} for each in candidate.logprobs
    ]
    starts = logprobs["text_offset"]
    text = PROMPT + answer["choices"][0]["text"]
    shown = [
        (token, start)
        for token, start in zip(logprobs["tokens"], starts, strict=True)
        if not token.startswith("<|")
    ]
    # The text leaves out the special tokens that were produced.
    assert len(shown) < len(starts)
    assert "".join(token for token, _ in shown) == answer["choices"][0]["text"]
    for token, start in shown:
        assert text[start:].startswith(token)
    assert starts == sorted(starts)
    assert starts[0] == len(PROMPT)


def test_positions_after_token_ids_follow_their_text(
    gateway: RunningGateway, grpc_client: Client
) -> None:
    answer = answered(gateway.complete(IDS, logprobs=0, max_tokens=2))
    logprobs = answer["choices"][0]["logprobs"]
    assert logprobs["text_offset"][0] == len(grpc_client.detokenize(IDS))
    assert logprobs["top_logprobs"] is None


def test_streamed_logprobs_add_up(gateway: RunningGateway) -> None:
    fields = {"max_tokens": 12, "logprobs": 1, "stop": ["zzz"]}
    whole = answered(gateway.complete(**fields))["choices"][0]["logprobs"]
    chunks = events(gateway.complete(**fields, stream=True))
    parts = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    for name in ("tokens", "text_offset"):
        assert [each for part in parts for each in part[name]] == whole[name]


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_an_echo_has_the_log_likelihood_of_the_prompt(
    gateway: RunningGateway, grpc_client: Client, max_tokens: int
) -> None:
    """Evaluation harnesses rank answers by these."""
    fields = {"echo": True, "logprobs": 1, "max_tokens": max_tokens}
    answer = answered(gateway.complete(**fields))
    [choice] = answer["choices"]
    logprobs = choice["logprobs"]
    first, rest = "<|state|>", PROMPT.removeprefix("<|state|>")
    scores = grpc_client.score(first, [rest])
    count = len(scores.scores[0].tokens)
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    found = logprobs["token_logprobs"][1 : count + 1]
    assert sum(found) == pytest.approx(scores.scores[0].total_logprob, rel=1e-4)
    assert len(logprobs["tokens"]) == 1 + count + max_tokens
    assert choice["text"].startswith(PROMPT)
    for token, start in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert choice["text"][start:].startswith(token)
    assert answer["usage"]["completion_tokens"] == max_tokens
    for top, value in zip(
        logprobs["top_logprobs"][1:], logprobs["token_logprobs"][1:], strict=True
    ):
        assert value in top.values()
        assert math.isfinite(value)
    [chunk] = events(gateway.complete(**fields, stream=True))
    assert chunk["choices"][0]["logprobs"]["tokens"] == logprobs["tokens"]


def test_own_fields_reach_the_server(gateway: RunningGateway) -> None:
    fields = {"prompt_logprobs": True, "token_ids": True, "max_tokens": 3}
    answer = answered(gateway.complete(**fields))
    [choice] = answer["choices"]
    assert len(choice["token_ids"]) == 3
    assert len(choice["prompt_logprobs"]) == answer["usage"]["prompt_tokens"]
    chunks = events(gateway.complete(**fields, stream=True))
    streamed = [each for chunk in chunks for each in chunk["choices"][0].get("token_ids", ())]
    assert streamed == choice["token_ids"]
    assert chunks[-1]["choices"][0]["prompt_logprobs"] == choice["prompt_logprobs"]


@pytest.mark.parametrize(
    "fields, text",
    [
        ({"regex": "(yes|no)!"}, ("yes!", "no!")),
        ({"choices": ["left", "right"]}, ("left", "right")),
        ({"lark": 'start: "a" | "bc"'}, ("a", "bc")),
        ({"json_schema": {"enum": ["u", "v"]}}, ('"u"', '"v"')),
    ],
)
def test_an_answer_keeps_its_constraint(
    gateway: RunningGateway, fields: dict[str, Any], text: tuple[str, ...]
) -> None:
    [choice] = answered(gateway.complete(**fields))["choices"]
    assert choice["text"] in text
    assert choice["finish_reason"] == "stop"


def test_a_long_prompt_is_truncated_on_request(gateway: RunningGateway) -> None:
    prompt = "umbrella " * 600
    status, param, code, message = refusal(gateway.complete(prompt))
    assert (status, param, code) == (400, "max_tokens", "context_length_exceeded")
    assert "512" in message
    answer = answered(gateway.complete(prompt, truncate_prompt=True))
    usage = answer["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] <= 512
    assert usage["prompt_tokens_details"]["truncated_tokens"] > 0


def test_literal_text_has_no_special_tokens(gateway: RunningGateway, grpc_client: Client) -> None:
    counts = [
        answered(gateway.complete("a<|act|>", literal=literal))["usage"]["prompt_tokens"]
        for literal in (False, True)
    ]
    assert counts[0] == len(grpc_client.tokenize("a<|act|>"))
    assert counts[1] > counts[0]


def test_models_are_listed(gateway: RunningGateway, grpc_client: Client) -> None:
    listed = answered(gateway.client.get("/v1/models"))
    assert listed["object"] == "list"
    [model] = listed["data"]
    assert (model["id"], model["object"], model["owned_by"]) == ("shop", "model", "gpt2flow")
    assert model["system_fingerprint"] == grpc_client.model().fingerprint
    assert answered(gateway.client.get("/v1/models/shop")) == model
    status, param, code, _ = refusal(gateway.client.get("/v1/models/other/model"))
    assert (status, param, code) == (404, "model", "model_not_found")
