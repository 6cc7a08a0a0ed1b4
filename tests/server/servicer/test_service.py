"""All RPCs, called by a real client of a real server."""

import asyncio
import json
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tests.support.engine_bench import CONTEXT, SLOTS
from tests.support.running_server import PROMPT, RunningServer, greedy

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server.bundle.manifest import load_bundle

pytestmark = pytest.mark.process


async def test_a_stream_equals_the_unary_answer(running: RunningServer) -> None:
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


async def test_logprobs_hold_the_bytes_of_each_token(running: RunningServer) -> None:
    options = greedy(5, output=pb.OutputOptions(logprobs=True))
    response = await running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=options))
    [candidate] = response.results[0].candidates
    data = b"".join(entry.chosen.token for entry in candidate.logprobs)
    assert data.decode(errors="replace") == candidate.text
    assert list(candidate.token_ids) == []


async def test_several_prompts_are_answered_in_order(running: RunningServer) -> None:
    prompts = [PROMPT, pb.Prompt(tokens=pb.TokenIds(ids=[5, 6, 7])), pb.Prompt(text="cup")]
    together = await running.stub.Generate(pb.GenerateRequest(prompts=prompts, options=greedy(9)))
    for prompt, result in zip(prompts, together.results, strict=True):
        alone = await running.stub.Generate(pb.GenerateRequest(prompts=[prompt], options=greedy(9)))
        # The prompt is cached by now, and other chunk lengths round differently.
        [one], [other] = alone.results[0].candidates, result.candidates
        assert (one.text, one.finish_reason) == (other.text, other.finish_reason)
        assert one.cumulative_logprob == pytest.approx(other.cumulative_logprob, abs=1e-3)


async def test_results_hold_candidates_usage_seed_and_timing(running: RunningServer) -> None:
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


async def test_beam_search_streams_one_final_message(running: RunningServer) -> None:
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
async def test_json_output_always_matches_its_schema(running: RunningServer, seed: int) -> None:
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
async def test_every_kind_of_constraint_is_obeyed(
    running: RunningServer, constraint: pb.Constraint, texts: set[str]
) -> None:
    options = greedy(20, constraint=constraint)
    response = await running.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=options))
    assert response.results[0].candidates[0].text in texts


async def test_stop_strings_never_reach_the_client(running: RunningServer) -> None:
    request = pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(40))
    whole = "".join(message.delta.text for message in await running.stream(request))
    stop = whole[10:14]
    request.options.stopping.stop_strings.append(stop)
    messages = await running.stream(request)
    assert "".join(message.delta.text for message in messages) == whole.partition(stop)[0]
    candidate = messages[-1].end.result.candidates[0]
    assert candidate.finish_reason == pb.FINISH_REASON_STOP
    assert candidate.stop_string == stop


async def test_score_ranks_continuations(running: RunningServer) -> None:
    continuations = [pb.Prompt(text=text) for text in (" It is late.", "cup", "<|user|>")]
    response = await running.stub.Score(pb.ScoreRequest(prompt=PROMPT, continuations=continuations))
    means = []
    for score in response.scores:
        assert score.total_logprob == pytest.approx(sum(each.logprob for each in score.tokens))
        means.append(score.total_logprob / len(score.tokens))
    assert list(response.ranking) == sorted(range(3), key=lambda i: -means[i])
    assert response.fingerprint == running.model.bundle.fingerprint


# --- Tokens and models ----------------------------------------------------------------


async def test_detokenize_undoes_tokenize(running: RunningServer) -> None:
    text = "naïve 我想买 😀 <|user|>"
    response = await running.stub.Tokenize(pb.TokenizeRequest(text=text))
    data = text.encode()
    assert all(data[token.start : token.end] == token.piece for token in response.tokens)
    assert b"".join(token.piece for token in response.tokens) == data
    tokens = pb.TokenIds(ids=[token.id for token in response.tokens])
    back = await running.stub.Detokenize(pb.DetokenizeRequest(tokens=tokens))
    assert back.text == text


async def test_a_long_text_is_tokenized(running: RunningServer) -> None:
    response = await running.stub.Tokenize(pb.TokenizeRequest(text="cup " * 25_000))
    assert response.tokens[-1].end == 100_000


async def test_models_are_listed_and_described(running: RunningServer, bundle: Path) -> None:
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


async def test_health_covers_the_server_and_each_model(running: RunningServer) -> None:
    for name in ("", "gpt2flow.inference.v1.InferenceService", "first", "second"):
        assert await running.status(name) == HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.status("third")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_services(running: RunningServer) -> None:
    def ask() -> tuple[set[str], set[str]]:
        with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            file = database.FindFileContainingSymbol("gpt2flow.inference.v1.InferenceService")
            methods = {method.name for method in file.service[0].method}
            return set(database.get_services()), methods

    services, methods = await asyncio.to_thread(ask)
    assert {"gpt2flow.inference.v1.InferenceService", "grpc.health.v1.Health"} <= services
    assert {"Generate", "GenerateStream", "Score"} <= methods
