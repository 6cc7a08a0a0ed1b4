"""A real server on a real port, and a real client."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status
from tests.server.conftest import CONTEXT, SLOTS

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub
from gpt2flow.server import EngineConfig, Server, ServerConfig
from gpt2flow.server.manifest import load_bundle
from gpt2flow.server.model import Model
from gpt2flow.server.model_runner import ModelRunner

PROMPT = pb.Prompt(text="Where is my order?")
GREEDY = pb.SamplingParams(temperature=0)


def greedy(max_new_tokens: int, **fields: Any) -> pb.GenerationOptions:
    stopping = pb.StoppingCriteria(max_new_tokens=max_new_tokens, ignore_eos=True)
    return pb.GenerationOptions(sampling=GREEDY, stopping=stopping, **fields)


@dataclass
class Running:
    """A server, and a client of it."""

    server: Server
    port: int
    channel: Any
    stub: Any

    @property
    def model(self) -> Model:
        return self.server._models[0]

    async def all_free(self) -> None:
        cache = self.model.engine._engine._cache
        async with asyncio.timeout(5):
            while cache.free_slots < SLOTS:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)

    async def stream(self, request: pb.GenerateStreamRequest) -> list[pb.GenerateStreamResponse]:
        return [message async for message in self.stub.GenerateStream(request)]


def config(bundle: Path, **options: Any) -> ServerConfig:
    engine = EngineConfig(threads=1, max_sequences=SLOTS, max_queued=2, prefill_chunk=8)
    return ServerConfig(
        models={"first": bundle, "second": bundle}, port=0, engine=engine, **options
    )


@pytest.fixture
async def running(bundle: Path) -> AsyncIterator[Running]:
    server = Server(config(bundle))
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        running = Running(server, port, channel, InferenceServiceStub(channel))
        yield running
        await running.all_free()
    await server.stop()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every decode step take 10 ms, so that there is time to act in."""
    decode = ModelRunner.decode

    def slowly(*args: Any) -> Any:
        time.sleep(0.01)
        return decode(*args)

    monkeypatch.setattr(ModelRunner, "decode", slowly)


async def failure(call: Any) -> tuple[grpc.StatusCode, str, Any]:
    """Returns code, text and the first rich detail of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    status = await rpc_status.aio.from_call(call)
    detail = None
    if status is not None:
        assert status.code == error.code().value[0]
        assert status.message == error.details()
        for kind in (BadRequest, RetryInfo):
            if status.details[0].Is(kind.DESCRIPTOR):
                detail = kind()
                status.details[0].Unpack(detail)
    return error.code(), error.details() or "", detail


def bad_fields(detail: BadRequest) -> list[str]:
    return [violation.field for violation in detail.field_violations]


# --- Generation -----------------------------------------------------------------------


async def test_stream_and_unary_give_the_same(running: Running) -> None:
    output = pb.OutputOptions(token_ids=True, logprobs=True, top_logprobs=2)
    options = greedy(20, output=output)
    messages = await running.stream(pb.GenerateStreamRequest(prompt=PROMPT, options=options))
    unary = await running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=options))
    candidate = unary.results[0].candidates[0]
    deltas = [message.delta for message in messages[:-1]]
    assert len(deltas) == 20
    assert "".join(delta.text for delta in deltas) == candidate.text
    assert [token for delta in deltas for token in delta.token_ids] == list(candidate.token_ids)
    entries = [entry for delta in deltas for entry in delta.logprobs]
    for one, other in zip(entries, candidate.logprobs, strict=True):
        assert one.chosen.token_id == other.chosen.token_id
        assert one.chosen.logprob == pytest.approx(other.chosen.logprob, abs=1e-3)
        assert [each.token_id for each in one.top] == [each.token_id for each in other.top]
    end = messages[-1].end
    assert end.model == unary.model == "first"
    assert end.fingerprint == unary.fingerprint == running.model.bundle.fingerprint
    last = end.result.candidates[0]
    assert last.finish_reason == candidate.finish_reason == pb.FINISH_REASON_LENGTH
    assert last.cumulative_logprob == pytest.approx(candidate.cumulative_logprob, abs=1e-3)
    assert (last.text, list(last.token_ids), list(last.logprobs)) == ("", [], [])


async def test_tokens_tell_their_bytes(running: Running) -> None:
    options = greedy(5, output=pb.OutputOptions(logprobs=True))
    response = await running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=options))
    [candidate] = response.results[0].candidates
    data = b"".join(entry.chosen.token for entry in candidate.logprobs)
    assert data.decode(errors="replace") == candidate.text
    assert list(candidate.token_ids) == []


async def test_several_prompts_are_answered_in_order(running: Running) -> None:
    prompts = [PROMPT, pb.Prompt(tokens=pb.TokenIds(ids=[5, 6, 7])), pb.Prompt(text="cup")]
    together = await running.stub.Generate(pb.GenerateRequest(prompts=prompts, options=greedy(9)))
    for prompt, result in zip(prompts, together.results, strict=True):
        alone = await running.stub.Generate(pb.GenerateRequest(prompts=[prompt], options=greedy(9)))
        # The prompt is in the cache by now; sums of other lengths end in other last bits.
        [one], [other] = alone.results[0].candidates, result.candidates
        assert (one.text, one.finish_reason) == (other.text, other.finish_reason)
        assert one.cumulative_logprob == pytest.approx(other.cumulative_logprob, abs=1e-3)


async def test_candidates_usage_and_seed(running: Running) -> None:
    options = pb.GenerationOptions(
        sampling=pb.SamplingParams(n=3, seed=2**64 - 1),
        stopping=pb.StoppingCriteria(max_new_tokens=4, ignore_eos=True),
        output=pb.OutputOptions(prompt_logprobs=True),
    )
    response = await running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=options))
    [result] = response.results
    assert [candidate.index for candidate in result.candidates] == [0, 1, 2]
    assert result.seed == 2**64 - 1
    assert result.usage.completion_tokens == 12
    assert result.usage.prompt_tokens == len(result.prompt_logprobs)
    assert not result.prompt_logprobs[0].chosen.HasField("logprob")
    assert result.prompt_logprobs[1].chosen.HasField("logprob")
    timing = result.timing
    assert timing.total_ms == pytest.approx(
        timing.queue_ms + timing.prefill_ms + timing.decode_ms, abs=0.01
    )
    assert timing.prefill_ms > 0
    assert timing.decode_ms > 0


async def test_beam_search_is_settled_at_the_end(running: Running) -> None:
    options = pb.GenerationOptions(
        beam_search=pb.BeamSearchParams(
            num_beams=4, num_return_sequences=2, early_stopping=pb.EARLY_STOPPING_NEVER
        ),
        stopping=pb.StoppingCriteria(max_new_tokens=10),
        output=pb.OutputOptions(token_ids=True),
    )
    [message] = await running.stream(pb.GenerateStreamRequest(prompt=PROMPT, options=options))
    best, second = message.end.result.candidates
    assert best.text
    assert best.token_ids
    assert best.beam_score >= second.beam_score


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "amount": {"type": "integer", "minimum": 0, "maximum": 99},
        "gift": {"type": "boolean"},
    },
    "required": ["name", "amount", "gift"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(8))
async def test_json_always_parses_and_fits_its_schema(running: Running, seed: int) -> None:
    options = pb.GenerationOptions(
        sampling=pb.SamplingParams(seed=seed),
        stopping=pb.StoppingCriteria(max_new_tokens=80),
        constraint=pb.Constraint(json_schema=json.dumps(SCHEMA)),
    )
    response = await running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=options))
    [candidate] = response.results[0].candidates
    assert candidate.finish_reason == pb.FINISH_REASON_CONSTRAINT
    output = json.loads(candidate.text)
    assert set(output) == {"name", "amount", "gift"}
    assert len(output["name"]) <= 6
    assert 0 <= output["amount"] <= 99
    assert isinstance(output["gift"], bool)
    assert response.results[0].usage.forced_tokens > 0


@pytest.mark.parametrize(
    "constraint,texts",
    [
        (pb.Constraint(choices=pb.Choices(values=["yes", "no"])), {"yes", "no"}),
        (pb.Constraint(regex="(ab){2}"), {"abab"}),
        (pb.Constraint(lark='start: "a" ("b" | "c")'), {"ab", "ac"}),
    ],
)
async def test_every_kind_of_constraint(
    running: Running, constraint: pb.Constraint, texts: set[str]
) -> None:
    options = greedy(20, constraint=constraint)
    response = await running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=options))
    assert response.results[0].candidates[0].text in texts


async def test_stop_strings_never_reach_the_client(running: Running) -> None:
    request = pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(40))
    whole = "".join(message.delta.text for message in await running.stream(request))
    stop = whole[10:14]
    request.options.stopping.stop_strings.append(stop)
    messages = await running.stream(request)
    assert "".join(message.delta.text for message in messages) == whole.partition(stop)[0]
    candidate = messages[-1].end.result.candidates[0]
    assert candidate.finish_reason == pb.FINISH_REASON_STOP
    assert candidate.stop_string == stop


async def test_score_ranks_continuations(running: Running) -> None:
    continuations = [pb.Prompt(text=text) for text in (" It is late.", "cup", "<|user|>")]
    response = await running.stub.Score(pb.ScoreRequest(prompt=PROMPT, continuations=continuations))
    means = []
    for score in response.scores:
        assert score.total_logprob == pytest.approx(sum(each.logprob for each in score.tokens))
        means.append(score.total_logprob / len(score.tokens))
    assert list(response.ranking) == sorted(range(3), key=lambda i: -means[i])
    assert response.fingerprint == running.model.bundle.fingerprint


# --- Tokens and models ----------------------------------------------------------------


async def test_tokenize_and_detokenize(running: Running) -> None:
    text = "naïve 我想买 😀 <|user|>"
    response = await running.stub.Tokenize(pb.TokenizeRequest(text=text))
    data = text.encode()
    assert all(data[token.start : token.end] == token.piece for token in response.tokens)
    assert b"".join(token.piece for token in response.tokens) == data
    tokens = pb.TokenIds(ids=[token.id for token in response.tokens])
    back = await running.stub.Detokenize(pb.DetokenizeRequest(tokens=tokens))
    assert back.text == text


async def test_a_long_text_is_tokenised(running: Running) -> None:
    response = await running.stub.Tokenize(pb.TokenizeRequest(text="cup " * 25_000))
    assert response.tokens[-1].end == 100_000


async def test_models_are_listed_and_described(running: Running, bundle: Path) -> None:
    listed = (await running.stub.ListModels(pb.ListModelsRequest())).models
    assert [model.name for model in listed] == ["first", "second"]
    manifest = load_bundle(bundle).manifest
    described = (await running.stub.GetModel(pb.GetModelRequest(model="second"))).model
    assert described == listed[1]
    assert described.profile == "fp32"
    assert described.parameters == manifest.source.parameters
    assert described.limits.context_length == CONTEXT
    assert described.limits.max_sequences == SLOTS
    assert described.limits.max_queued == 2
    assert described.quality["perplexity"] > 0
    assert described.recipe["kv_cache"] == "fp32"


async def test_health_of_the_server_and_of_each_model(running: Running) -> None:
    stub: Any = health_pb2_grpc.HealthStub(running.channel)
    for name in ("", "gpt2flow.inference.v1.InferenceService", "first", "second"):
        response = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert response.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service="third"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_reflection_tells_the_services(running: Running) -> None:
    def ask() -> tuple[set[str], set[str]]:
        with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            file = database.FindFileContainingSymbol("gpt2flow.inference.v1.InferenceService")
            methods = {method.name for method in file.service[0].method}
            return set(database.get_services()), methods

    services, methods = await asyncio.to_thread(ask)
    assert {"gpt2flow.inference.v1.InferenceService", "grpc.health.v1.Health"} <= services
    assert {"Generate", "GenerateStream", "Score"} <= methods


# --- Errors ---------------------------------------------------------------------------


async def test_every_bad_field_is_named(running: Running) -> None:
    request = pb.GenerateRequest(
        prompts=[
            pb.Prompt(),
            PROMPT,
            pb.Prompt(text=""),
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
        "prompts[2]",
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
    running: Running, options: pb.GenerationOptions, field: str
) -> None:
    request = pb.GenerateStreamRequest(prompt=PROMPT, options=options)
    call = running.stub.GenerateStream(request)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert f"options.{field}: " in (caught.value.details() or "")


async def test_no_prompt_and_no_continuation(running: Running) -> None:
    code, _, detail = await failure(running.stub.Generate(pb.GenerateRequest()))
    assert (code, bad_fields(detail)) == (grpc.StatusCode.INVALID_ARGUMENT, ["prompts"])
    code, _, detail = await failure(running.stub.Score(pb.ScoreRequest(prompt=PROMPT)))
    assert (code, bad_fields(detail)) == (grpc.StatusCode.INVALID_ARGUMENT, ["continuations"])


async def test_the_context_limit_names_both_numbers(running: Running) -> None:
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
async def test_an_unknown_model_is_not_found(running: Running, method: str, request_: Any) -> None:
    code, text, _ = await failure(getattr(running.stub, method)(request_))
    assert code == grpc.StatusCode.NOT_FOUND
    assert text == "no model named 'third'; loaded: first, second"


async def test_an_id_outside_of_the_vocabulary(running: Running) -> None:
    request = pb.DetokenizeRequest(tokens=pb.TokenIds(ids=[1, 99_999]))
    code, _, detail = await failure(running.stub.Detokenize(request))
    assert (code, bad_fields(detail)) == (grpc.StatusCode.INVALID_ARGUMENT, ["tokens.ids[1]"])


@pytest.mark.usefixtures("slow")
async def test_a_full_queue_tells_when_to_come_again(running: Running) -> None:
    calls = [
        running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=greedy(30)))
        for _ in range(SLOTS + 2)
    ]
    await asyncio.sleep(0.1)
    code, _, detail = await failure(
        running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=greedy(1)))
    )
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert detail.retry_delay.ToTimedelta().total_seconds() > 0
    for call in calls:
        assert len((await call).results) == 1


async def test_a_defect_has_an_id_and_its_details_stay_in_the_log(
    running: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_args: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(ModelRunner, "run_chunk", broken)
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


async def test_usage_tells_what_was_cached(running: Running) -> None:
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


# --- Time and cancellation ------------------------------------------------------------


@pytest.mark.usefixtures("slow")
async def test_a_cancelled_stream_frees_its_slots(running: Running) -> None:
    request = pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(70))
    calls = [running.stub.GenerateStream(request) for _ in range(SLOTS)]
    for call in calls:
        await call.read()
    assert running.model.engine._engine._cache.free_slots == 0
    for call in calls:
        call.cancel()
    await running.all_free()
    await asyncio.wait_for(running.model.engine.idle.wait(), 5)


@pytest.mark.usefixtures("slow")
async def test_a_cancelled_unary_call_frees_its_slots(running: Running) -> None:
    call = running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT, PROMPT], options=greedy(70)))
    await asyncio.sleep(0.1)
    assert running.model.engine._engine._cache.free_slots == SLOTS - 2
    call.cancel()
    await running.all_free()


@pytest.mark.usefixtures("slow")
async def test_a_deadline_ends_the_call_and_frees_its_slots(running: Running) -> None:
    started = time.monotonic()
    code, _, _ = await failure(
        running.stub.Generate(
            pb.GenerateRequest(prompts=[PROMPT], options=greedy(70)), timeout=0.15
        )
    )
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started < 0.5
    await running.all_free()


@pytest.mark.usefixtures("slow")
async def test_a_time_limit_without_partial_results_is_an_error(running: Running) -> None:
    options = greedy(70)
    options.stopping.time_limit_ms = 100
    code, _, _ = await failure(
        running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=options))
    )
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("by_deadline", [True, False])
async def test_what_is_there_when_the_time_is_up(running: Running, *, by_deadline: bool) -> None:
    options = greedy(70)
    options.stopping.return_partial_on_time_limit = True
    if not by_deadline:
        options.stopping.time_limit_ms = 200
    response = await running.stub.Generate(
        pb.GenerateRequest(prompts=[PROMPT], options=options),
        timeout=0.3 if by_deadline else None,
    )
    [candidate] = response.results[0].candidates
    assert candidate.finish_reason == pb.FINISH_REASON_TIME_LIMIT
    assert candidate.text


# --- Shutting down --------------------------------------------------------------------


@pytest.mark.usefixtures("slow")
async def test_draining_finishes_what_runs_and_refuses_what_comes(bundle: Path) -> None:
    server = Server(config(bundle, drain_seconds=10))
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = InferenceServiceStub(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)
        accepted = stub.GenerateStream(pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(50)))
        messages = aiter(accepted)
        await anext(messages)
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0.05)
        code, _, _ = await failure(
            stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=greedy(3)))
        )
        assert code == grpc.StatusCode.UNAVAILABLE
        response = await health.Check(health_pb2.HealthCheckRequest(service="first"))
        assert response.status == health_pb2.HealthCheckResponse.NOT_SERVING
        rest = [message async for message in messages]
        assert rest[-1].end.result.usage.completion_tokens == 50
        await stopping


@pytest.mark.usefixtures("slow")
async def test_draining_does_not_wait_for_ever(bundle: Path) -> None:
    server = Server(config(bundle, drain_seconds=0.1))
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = InferenceServiceStub(channel)
        call = stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=greedy(75)))
        await asyncio.sleep(0.05)
        await server.stop()
        code, _, _ = await failure(call)
        assert code == grpc.StatusCode.UNAVAILABLE
