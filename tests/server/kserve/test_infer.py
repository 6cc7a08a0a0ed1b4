"""Requests with one response: the same results as of our own protocol."""

import json
from typing import Any

import grpc
import pytest
from tests.support.open_inference import (
    TEXT,
    as_raw,
    greedy,
    outputs_of,
    request,
    stub_of,
    tensor,
)
from tests.support.running_server import GREEDY, RunningServer

from gpt2flow.inference.kserve.v2 import open_inference_pb2 as pb
from gpt2flow.inference.v1 import inference_pb2 as own

pytestmark = pytest.mark.process

SAMPLED: dict[str, Any] = {
    "temperature": 0.75,
    "top_k": 30,
    "top_p": 0.875,
    "min_p": 0.125,
    "max_tokens": 9,
}


@pytest.fixture
def stub(running: RunningServer) -> Any:
    return stub_of(running.channel)


async def generated(
    running: RunningServer, *texts: str, **options: Any
) -> list[own.GenerationResult]:
    """Return the results of the same options in our own protocol."""
    message = own.GenerateRequest(
        prompts=[own.Prompt(text=text) for text in texts],
        options=own.GenerationOptions(**options),
    )
    return list((await running.stub.Generate(message)).results)


def ended(max_new_tokens: int, **fields: Any) -> own.StoppingCriteria:
    return own.StoppingCriteria(max_new_tokens=max_new_tokens, **fields)


@pytest.mark.parametrize("raw", [False, True])
async def test_a_batch_of_prompts_gets_the_results_of_generate(
    running: RunningServer, stub: Any, *, raw: bool
) -> None:
    texts = [TEXT, "naïve 杯子", "cup"]
    message = greedy(12, text=texts)
    message.id = "order 17"
    message.model_name, message.model_version = "second", "1"
    response = await stub.ModelInfer(as_raw(message) if raw else message)
    assert (response.model_name, response.model_version) == ("second", "1")
    assert response.id == "order 17"
    assert bool(response.raw_output_contents) is raw
    results = await generated(running, *texts, sampling=GREEDY, stopping=ended(12, ignore_eos=True))
    assert outputs_of(response) == {
        "text_output": [each.candidates[0].text for each in results],
        "finish_reason": ["length"] * 3,
        "num_input_tokens": [each.usage.prompt_tokens for each in results],
        "num_output_tokens": [12] * 3,
    }


async def test_every_sampling_option_has_its_effect(running: RunningServer, stub: Any) -> None:
    options: dict[str, Any] = SAMPLED | {
        "typical_p": 0.5,
        "repetition_penalty": 1.5,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "no_repeat_ngram_size": 2,
        "ignore_eos": True,
        "min_tokens": 3,
        "n": 3,
        "bad_words": ["e", "a"],
    }
    seed = tensor("seed", 2**64 - 1, "UINT64")
    response = await stub.ModelInfer(as_raw(request(seed, **options)))
    sampling = own.SamplingParams(
        seed=2**64 - 1,
        **{key: value for key, value in options.items() if not key.endswith(("tokens", "eos"))},
    )
    stopping = ended(9, min_new_tokens=3, ignore_eos=True)
    [result] = await generated(running, TEXT, sampling=sampling, stopping=stopping)
    found = outputs_of(response)
    assert found["text_output"] == [each.text for each in result.candidates]
    assert found["sequence_index"] == [0, 1, 2]
    assert len(set(found["text_output"])) > 1


async def test_parameters_and_json_mean_the_same_as_tensors(stub: Any) -> None:
    seed = {"seed": 5}
    tensors = request(tensor("seed", 5, "INT64"), **SAMPLED)
    parameters = request(parameters=SAMPLED | seed)
    options = request(sampling_parameters=json.dumps(SAMPLED | seed))
    words = {name: str(value) for name, value in (SAMPLED | seed).items()}
    strings = request(parameters={"sampling_parameters": json.dumps(words)})
    texts = [
        outputs_of(await stub.ModelInfer(each))["text_output"]
        for each in (tensors, parameters, options, strings)
    ]
    assert texts == [texts[0]] * 4


async def test_beams_are_those_of_generate(running: RunningServer, stub: Any) -> None:
    options: dict[str, Any] = {"beam_width": 4, "num_return_sequences": 3, "length_penalty": 0.5}
    message = request(
        max_tokens=8,
        early_stopping=True,
        outputs=["text_output", "output_ids", "beam_score", "cumulative_logprob"],
        **options,
    )
    found = outputs_of(await stub.ModelInfer(message))
    beams = own.BeamSearchParams(
        num_beams=4,
        num_return_sequences=3,
        length_penalty=0.5,
        early_stopping=own.EARLY_STOPPING_FIRST,
    )
    [result] = await generated(
        running,
        TEXT,
        beam_search=beams,
        stopping=ended(8),
        output=own.OutputOptions(token_ids=True),
    )
    candidates = result.candidates
    assert found["text_output"] == [each.text for each in candidates]
    rows = [[id_ for id_ in row if id_ >= 0] for row in found["output_ids"]]
    assert rows == [list(each.token_ids) for each in candidates]
    assert found["beam_score"] == pytest.approx([each.beam_score for each in candidates], rel=1e-4)
    assert found["cumulative_logprob"] == pytest.approx(
        [each.cumulative_logprob for each in candidates], rel=1e-4
    )


async def test_neutral_options_of_the_other_decoding_do_no_harm(stub: Any) -> None:
    beams = {"beam_width": 2, "max_tokens": 5}
    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "n": 1}
    found = [
        outputs_of(await stub.ModelInfer(request(parameters=each)))["text_output"]
        for each in (beams, beams | sampling)
    ]
    assert found[0] == found[1]
    unused = {"beam_width": 1, "length_penalty": 1.0, "early_stopping": False}
    plain = outputs_of(await stub.ModelInfer(greedy(5)))["text_output"]
    neutral = greedy(5, parameters=unused | {"num_return_sequences": 1})
    assert outputs_of(await stub.ModelInfer(neutral))["text_output"] == plain


async def test_token_ids_are_a_prompt_and_an_answer(running: RunningServer, stub: Any) -> None:
    ids = tensor("input_ids", [5, 6, 7, 8, 9, 0], shape=[2, 3])
    lengths = tensor("input_lengths", [3, 2])
    wanted = ["output_ids", "output_log_probs", "num_output_tokens", "num_cached_tokens"]
    response = await stub.ModelInfer(greedy(6, ids, lengths, text=None, outputs=wanted))
    found = outputs_of(response)
    assert [each.name for each in response.outputs] == wanted[:2] + wanted[:1:-1]
    message = own.GenerateRequest(
        prompts=[own.Prompt(tokens=own.TokenIds(ids=each)) for each in ([5, 6, 7], [8, 9])],
        options=own.GenerationOptions(
            sampling=GREEDY,
            stopping=ended(6, ignore_eos=True),
            output=own.OutputOptions(token_ids=True, logprobs=True),
        ),
    )
    candidates = [each.candidates[0] for each in (await running.stub.Generate(message)).results]
    assert found["output_ids"] == [list(each.token_ids) for each in candidates]
    for row, each in zip(found["output_log_probs"], candidates, strict=True):
        assert row == pytest.approx([entry.chosen.logprob for entry in each.logprobs], abs=1e-3)
    usual = outputs_of(await stub.ModelInfer(greedy(6, ids, text=None)))
    assert set(usual) == {"output_ids", "finish_reason", "num_input_tokens", "num_output_tokens"}
    assert usual["num_input_tokens"] == [3, 3]


async def test_outputs_of_unequal_length_are_padded(stub: Any) -> None:
    stop = tensor("stop_words", ["a", "e", "i", "o", "u"], shape=[5, 1])
    wanted = ["output_ids", "output_log_probs", "num_output_tokens", "finish_reason"]
    message = request(stop, n=5, max_tokens=30, seed=3, outputs=wanted)
    found = outputs_of(await stub.ModelInfer(message))
    lengths = found["num_output_tokens"]
    assert len(set(lengths)) > 1
    for name, padding in (("output_ids", -1), ("output_log_probs", 0.0)):
        for row, length in zip(found[name], lengths, strict=True):
            assert row[length:] == [padding] * (max(lengths) - length)
            assert padding not in row[:length]


@pytest.mark.parametrize(
    "options,expected",
    [
        ({"choices": ["late"]}, ["late"]),
        ({"regex": "(blue ){2}"}, ["blue blue "]),
        ({"lark": 'start: "cup"'}, ["cup"]),
        ({"json_schema": '{"const": {"gift": true}}'}, ['{"gift":true}']),
    ],
)
async def test_constraints_shape_the_output(
    stub: Any, options: dict[str, Any], expected: list[str]
) -> None:
    found = outputs_of(await stub.ModelInfer(request(**options)))
    assert found["text_output"] == expected
    assert found["finish_reason"] == ["constraint"]
    if "choices" not in options:
        by_parameter = request(parameters=options)
        assert outputs_of(await stub.ModelInfer(by_parameter))["text_output"] == expected


async def test_the_prompt_is_part_of_the_output_on_request(stub: Any) -> None:
    alone = outputs_of(await stub.ModelInfer(greedy(4)))["text_output"][0]
    message = greedy(4, exclude_input_in_output=False)
    assert outputs_of(await stub.ModelInfer(message))["text_output"] == [TEXT + alone]


async def test_special_tokens_are_shown_on_request(stub: Any) -> None:
    message = request(max_tokens=4, regex="a", skip_special_tokens=False)
    assert outputs_of(await stub.ModelInfer(message))["text_output"][0].startswith("a")
    literal = "a<|user|>b"
    counts = [
        outputs_of(await stub.ModelInfer(greedy(1, text=literal, literal=each)))
        for each in (True, False)
    ]
    assert counts[0]["num_input_tokens"][0] > counts[1]["num_input_tokens"][0] == 3


async def test_the_time_limit_is_in_microseconds(stub: Any) -> None:
    message = greedy(90, text="cup", parameters={"timeout": 1})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(message)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    fine = greedy(5, parameters={"timeout": 120_000_000})
    assert outputs_of(await stub.ModelInfer(fine))["num_output_tokens"] == [5]


async def test_metadata_lists_what_requests_may_have(stub: Any) -> None:
    metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name="first", version="1"))
    assert (metadata.name, list(metadata.versions)) == ("first", ["1"])
    inputs = {each.name: (each.datatype, list(each.shape)) for each in metadata.inputs}
    outputs = {each.name: (each.datatype, list(each.shape)) for each in metadata.outputs}
    assert inputs["text_input"] == ("BYTES", [-1])
    assert inputs["input_ids"] == ("INT32", [-1, -1])
    assert inputs["seed"] == ("UINT64", [1])
    assert inputs["temperature"] == ("FP32", [1])
    assert inputs["stream"] == ("BOOL", [1])
    assert outputs["text_output"] == ("BYTES", [-1])
    everything = greedy(2, outputs=list(outputs))
    assert set(outputs_of(await stub.ModelInfer(everything))) == set(outputs)
    config = (await stub.ModelConfig(pb.ModelConfigRequest(name="first"))).config
    assert config.model_transaction_policy.decoupled
    assert {each.name for each in config.input} == set(inputs)
    assert {each.name for each in config.output} == set(outputs)
    assert all(each.data_type for each in (*config.input, *config.output))
    server = await stub.ServerMetadata(pb.ServerMetadataRequest())
    assert server.name == "gpt2flow"
    assert server.version
    assert "model_repository" in server.extensions
