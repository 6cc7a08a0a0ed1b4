"""Tests that the client covers every field of the protocol."""

import re
from dataclasses import fields
from typing import Any

import pytest
from tests.support.flaky_server import BOTH, FlakyService, ask, listening

from gpt2flow.client import (
    BeamSearch,
    Candidate,
    Choices,
    ContinuationScore,
    Delta,
    Generation,
    JsonSchema,
    Lark,
    Model,
    ModelLimits,
    Options,
    Regex,
    Sampling,
    Scores,
    SettingsError,
    StoredChoices,
    Text,
    Timing,
    Token,
    TokenLogprob,
    Usage,
    requests,
)
from gpt2flow.client.prompts import build_prompt
from gpt2flow.client.responses import parse_generations
from gpt2flow.inference.v1 import inference_pb2 as pb

EVERYTHING = Options(
    decoding=Sampling(
        temperature=0.5,
        top_k=1,
        top_p=0.5,
        min_p=0.5,
        typical_p=0.5,
        repetition_penalty=1.5,
        presence_penalty=0.5,
        frequency_penalty=0.5,
        no_repeat_ngram_size=1,
        logit_bias=((1, 0.5),),
        bad_words=("x",),
        seed=1,
        n=1,
    ),
    max_new_tokens=1,
    min_new_tokens=1,
    stop_strings=("x",),
    stop_token_ids=(1,),
    ignore_eos=True,
    time_limit_ms=1,
    return_partial_on_time_limit=True,
    constraint=Choices(("x",)),
    logprobs=True,
    top_logprobs=1,
    prompt_logprobs=True,
    echo=True,
    token_ids=True,
    priority=1,
    truncate_prompt=True,
    include_stop_string=True,
    include_special_tokens=True,
)
BEAMS = BeamSearch(
    num_beams=2,
    length_penalty=0.5,
    early_stopping="never",
    num_return_sequences=1,
    no_repeat_ngram_size=1,
    repetition_penalty=1.5,
    logit_bias=((1, 0.5),),
    bad_words=("x",),
)


def names(descriptor: Any) -> set[str]:
    return {field.name for field in descriptor.fields}


def given(message: Any) -> set[str]:
    return {field.name for field, _ in message.ListFields()}


def test_every_option_reaches_the_server() -> None:
    message = EVERYTHING.message()
    assert given(message) == names(pb.GenerationOptions.DESCRIPTOR) - {"beam_search"}
    for part in (message.sampling, message.stopping, message.output):
        assert given(part) == names(part.DESCRIPTOR)
    beams = Options(decoding=BEAMS).message().beam_search
    assert given(beams) == names(beams.DESCRIPTOR)


def test_every_field_of_a_prompt_reaches_the_server() -> None:
    text = build_prompt("prompt", Text("x", literal=True, add_special_tokens=False))
    assert given(text) | given(build_prompt("prompt", [1])) == names(pb.Prompt.DESCRIPTOR)
    assert not text.add_special_tokens
    assert given(build_prompt("prompt", Text("x"))) == {"text"}


def test_every_field_of_the_other_requests_reaches_the_server() -> None:
    flags = {"literal": True, "add_special_tokens": False}
    for message in (
        requests.build_tokenize("x", **flags, model="m"),
        requests.build_detokenize([1], skip_special_tokens=True, model="m"),
        requests.build_score("x", ["y"], "m"),
        requests.build_generate(["x"], EVERYTHING, "m"),
        requests.build_single("x", EVERYTHING, "m"),
        requests.build_stream("x", EVERYTHING, "m"),
        requests.build_get_model("m"),
    ):
        assert given(message) == names(message.DESCRIPTOR)


@pytest.mark.parametrize("early", [False, True, "never"])
def test_every_value_of_early_stopping_is_sent(early: Any) -> None:
    message = Options(decoding=BeamSearch(2, early_stopping=early)).message()
    expected = {False: "HEURISTIC", True: "FIRST", "never": "NEVER"}[early]
    name = pb.EarlyStopping.Name(message.beam_search.early_stopping)
    assert name == f"EARLY_STOPPING_{expected}"


def test_every_kind_of_constraint_is_sent() -> None:
    kinds = (JsonSchema("x"), Regex("x"), Choices(("x",)), Lark("x"), StoredChoices("x"))
    sent = [Options(constraint=kind).message().constraint for kind in kinds]
    assert set.union(*map(given, sent)) == names(pb.Constraint.DESCRIPTOR)


@pytest.mark.parametrize(
    "message, result, elsewhere",
    [
        (pb.Candidate, Candidate, set()),
        (pb.Usage, Usage, set()),
        (pb.Timing, Timing, set()),
        (pb.GenerationResult, Generation, set()),
        (pb.GenerateResponse, Generation, {"results"}),
        (pb.StreamEnd, Generation, {"result"}),
        (pb.CandidateDelta, Delta, set()),
        (pb.TokenLogprob, TokenLogprob, set()),
        (pb.PositionLogprobs, TokenLogprob, {"chosen"}),
        (pb.ContinuationScore, ContinuationScore, set()),
        (pb.ScoreResponse, Scores, set()),
        (pb.Token, Token, set()),
        (pb.Model, Model, set()),
        (pb.ModelLimits, ModelLimits, set()),
    ],
)
def test_every_response_field_has_a_result_field(
    message: Any, result: type[Any], elsewhere: set[str]
) -> None:
    assert names(message.DESCRIPTOR) - elsewhere <= {field.name for field in fields(result)}


def test_a_finish_reason_of_a_newer_server_is_its_number() -> None:
    result = pb.GenerationResult(candidates=[pb.Candidate(finish_reason=99)])  # type: ignore[arg-type]
    [generation] = parse_generations(pb.GenerateResponse(results=[result]), "id")
    assert generation.candidates[0].finish_reason == "reason 99"


@pytest.mark.parametrize("kind", BOTH)
def test_a_request_id_is_sent_and_returned(kind: type[Any]) -> None:
    flaky = FlakyService()
    with listening(flaky) as address:
        given = ask(kind, address, lambda c: c.stream("x", request_id="order-1"))[-1]
        generated = ask(kind, address, lambda c: c.stream("x"))[-1]
    assert given.request_id == "order-1"
    assert generated.request_id not in {"", "order-1"}
    assert [call.metadata["x-request-id"] for call in flaky.calls] == [
        "order-1",
        generated.request_id,
    ]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("invalid", ["", " x", "naïve", "a\nb", "x" * 129])
def test_an_invalid_request_id_is_rejected(kind: type[Any], invalid: str) -> None:
    with pytest.raises(SettingsError, match="request_id is"):
        ask(kind, "127.0.0.1:1", lambda c: c.model(request_id=invalid))


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e300, float("inf"), float("nan")])
@pytest.mark.parametrize("kind", BOTH)
def test_an_invalid_timeout_is_rejected(kind: type[Any], seconds: float) -> None:
    with pytest.raises(SettingsError, match=re.escape(f"timeout is {seconds} s, must be above 0")):
        kind("127.0.0.1:1", timeout=seconds)
    with pytest.raises(SettingsError, match="must be above 0"):
        ask(kind, "127.0.0.1:1", lambda c: c.model(timeout=seconds))
