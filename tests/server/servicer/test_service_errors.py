"""Errors of the RPCs: status codes, messages and details."""

import asyncio
import json
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs
from tests.support.engine_bench import CONTEXT, SLOTS
from tests.support.run_gate import closed_gate
from tests.support.running_server import PROMPT, RunningServer, bad_fields, failure, greedy
from tests.support.waiting import SECONDS, until

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub
from gpt2flow.server.bundle.model_runner import ModelRunner

pytestmark = pytest.mark.process


async def test_every_bad_field_is_named(running: RunningServer) -> None:
    request = pb.GenerateRequest(
        prompts=[
            pb.Prompt(),
            PROMPT,
            pb.Prompt(tokens=pb.TokenIds(ids=[1]), literal=True, add_special_tokens=False),
            pb.Prompt(tokens=pb.TokenIds(ids=[1, 10**6])),
        ],
        options=pb.GenerationOptions(
            sampling=pb.SamplingParams(top_p=2, n=100),
            stopping=pb.StoppingCriteria(max_new_tokens=0),
        ),
    )
    code, _, detail = await failure(running.stub.Generate(request))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert bad_fields(detail) == [
        "options.sampling.top_p",
        "options.sampling.n",
        "options.stopping.max_new_tokens",
        "prompts[0]",
        "prompts[2].literal",
        "prompts[2].add_special_tokens",
        "prompts[3].tokens.ids",
    ]


@pytest.mark.parametrize(
    "options,field",
    [
        (pb.GenerationOptions(constraint=pb.Constraint(json_schema="{")), "constraint.json_schema"),
        (pb.GenerationOptions(constraint=pb.Constraint(regex="(")), "constraint.regex"),
        (pb.GenerationOptions(constraint=pb.Constraint(lark="start: x")), "constraint.lark"),
        (
            pb.GenerationOptions(constraint=pb.Constraint(choices=pb.Choices())),
            "constraint.choices.values",
        ),
        (pb.GenerationOptions(beam_search=pb.BeamSearchParams()), "beam_search.num_beams"),
        (
            pb.GenerationOptions(
                beam_search=pb.BeamSearchParams(
                    num_beams=2,
                    early_stopping=77,  # type: ignore[arg-type]
                )
            ),
            "beam_search.early_stopping",
        ),
    ],
)
async def test_bad_options_are_named(
    running: RunningServer, options: pb.GenerationOptions, field: str
) -> None:
    request = pb.GenerateStreamRequest(prompt=PROMPT, options=options)
    call = running.stub.GenerateStream(request)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert f"options.{field}: " in (caught.value.details() or "")


async def test_an_unknown_enum_value_hides_no_other_bad_field(running: RunningServer) -> None:
    beams = pb.BeamSearchParams(num_beams=0, early_stopping=77)  # type: ignore[arg-type]
    request = pb.GenerateRequest(
        prompts=[PROMPT], options=pb.GenerationOptions(beam_search=beams, priority=1000)
    )
    code, _, detail = await failure(running.stub.Generate(request))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert bad_fields(detail) == [
        "options.beam_search.num_beams",
        "options.beam_search.early_stopping",
        "options.priority",
    ]


async def test_missing_prompts_and_continuations_are_named(running: RunningServer) -> None:
    options = pb.GenerationOptions(sampling=pb.SamplingParams(top_p=2))
    code, _, detail = await failure(running.stub.Generate(pb.GenerateRequest(options=options)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert bad_fields(detail) == ["prompts", "options.sampling.top_p"]
    code, _, detail = await failure(running.stub.Score(pb.ScoreRequest(prompt=PROMPT)))
    assert (code, bad_fields(detail)) == (grpc.StatusCode.INVALID_ARGUMENT, ["continuations"])
    code, _, detail = await failure(running.stub.Score(pb.ScoreRequest()))
    assert bad_fields(detail) == ["continuations", "prompt"]


async def test_the_context_limit_error_names_both_lengths(running: RunningServer) -> None:
    tokens = pb.Prompt(tokens=pb.TokenIds(ids=[5] * 90))
    code, text, detail = await failure(
        running.stub.Generate(pb.GenerateRequest(prompts=[tokens], options=greedy(7)))
    )
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "90 tokens" in text
    assert "(7)" in text
    assert str(CONTEXT) in text
    assert bad_fields(detail) == ["options.stopping.max_new_tokens"]
    code, text, detail = await failure(
        running.stub.Score(
            pb.ScoreRequest(
                prompt=tokens, continuations=[PROMPT, pb.Prompt(tokens=pb.TokenIds(ids=[5] * 7))]
            )
        )
    )
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert bad_fields(detail) == ["continuations[0]", "continuations[1]"]


@pytest.mark.parametrize(
    "method,request_",
    [
        ("Generate", pb.GenerateRequest(model="third", prompts=[PROMPT])),
        ("Score", pb.ScoreRequest(model="third")),
        ("Tokenize", pb.TokenizeRequest(model="third")),
        ("Detokenize", pb.DetokenizeRequest(model="third")),
        ("GetModel", pb.GetModelRequest(model="third")),
    ],
)
async def test_an_unknown_model_is_not_found(
    running: RunningServer, method: str, request_: Any
) -> None:
    code, text, _ = await failure(getattr(running.stub, method)(request_))
    assert code == grpc.StatusCode.NOT_FOUND
    assert text == "no model named 'third'; loaded: first, second"


async def test_a_token_id_outside_the_vocabulary_is_named(running: RunningServer) -> None:
    request = pb.DetokenizeRequest(tokens=pb.TokenIds(ids=[1, 99_999]))
    code, _, detail = await failure(running.stub.Detokenize(request))
    assert (code, bad_fields(detail)) == (grpc.StatusCode.INVALID_ARGUMENT, ["tokens.ids[1]"])


async def test_a_full_queue_reports_a_retry_delay(running: RunningServer) -> None:
    request = pb.GenerateRequest(prompts=[PROMPT], options=greedy(30))
    with closed_gate(running.engine) as gate:
        calls = [running.stub.Generate(request) for _ in range(SLOTS + 2)]
        await gate.until_unfinished(SLOTS + 2)
        code, _, detail = await failure(running.stub.Generate(request))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert detail.retry_delay.ToTimedelta().total_seconds() > 0
    for call in calls:
        assert len((await call).results) == 1


async def test_the_retries_of_grpc_wait_for_the_retry_delay(running: RunningServer) -> None:
    policy = {
        "maxAttempts": 5,
        # Without the server's delay, the first retry would come after the call's deadline.
        "initialBackoff": "6000s",
        "maxBackoff": "6000s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    request = pb.GenerateRequest(prompts=[PROMPT], options=greedy(30))
    options = [("grpc.service_config", config)]
    async with grpc.aio.insecure_channel(f"localhost:{running.port}", options=options) as channel:
        with capture_logs() as log, closed_gate(running.engine) as gate:
            calls = [running.stub.Generate(request) for _ in range(SLOTS + 2)]
            await gate.until_unfinished(SLOTS + 2)
            refused = InferenceServiceStub(channel).Generate(request, timeout=SECONDS)
            calls.append(refused)
            asking = asyncio.ensure_future(refused)
            await until(lambda: any(line.get("code") == "RESOURCE_EXHAUSTED" for line in log))
        assert len((await asking).results) == 1
        for call in calls:
            assert len((await call).results) == 1


async def test_the_delay_for_the_retries_of_grpc_is_that_of_the_details(
    running: RunningServer,
) -> None:
    request = pb.GenerateRequest(prompts=[PROMPT], options=greedy(30))
    with closed_gate(running.engine) as gate:
        calls = [running.stub.Generate(request) for _ in range(SLOTS + 2)]
        await gate.until_unfinished(SLOTS + 2)
        refused = running.stub.Generate(request)
        _, _, detail = await failure(refused)
        pushback = dict(await refused.trailing_metadata())["grpc-retry-pushback-ms"]
        assert int(pushback) == detail.retry_delay.ToMilliseconds() > 0
        for call in calls:
            call.cancel()
        await gate.until_unfinished(0)


async def test_an_internal_error_has_an_id_and_is_explained_in_the_log_only(
    running: RunningServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_args: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(ModelRunner, "run", broken)
    code, text, _ = await failure(
        running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=greedy(3)))
    )
    assert code == grpc.StatusCode.INTERNAL
    assert "secret" not in text
    incident = text.removeprefix("internal error ")
    assert len(incident) == 32
    log = capsys.readouterr()
    assert incident in log.out + log.err
    assert "secret detail" in log.out + log.err


async def test_usage_reports_cached_tokens(running: RunningServer) -> None:
    prefix = [(7 * at) % 290 + 5 for at in range(60)]
    for last, cached in ((1, 0), (2, 60)):
        prompt = pb.Prompt(tokens=pb.TokenIds(ids=[*prefix, last]))
        request = pb.GenerateRequest(prompts=[prompt], options=greedy(3))
        [result] = (await running.stub.Generate(request)).results
        assert (result.usage.prompt_tokens, result.usage.cached_tokens) == (61, cached)
    scored = await running.stub.Score(
        pb.ScoreRequest(prompt=prompt, continuations=[pb.Prompt(text="no")])
    )
    assert scored.usage.cached_tokens == 60
