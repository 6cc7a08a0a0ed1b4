"""Streams of requests: chunks, ends, concurrency, cancellation."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from tests.support.engine_bench import SLOTS
from tests.support.open_inference import (
    as_raw,
    greedy,
    is_final,
    outputs_of,
    request,
    responses,
    rest_of,
    stub_of,
    tensor,
)
from tests.support.run_gate import closed_gate
from tests.support.running_server import RunningServer, server_config, serving
from tests.support.waiting import SECONDS, until

from gpt2flow.inference.kserve.v2 import open_inference_pb2 as pb

pytestmark = pytest.mark.process

LONG = greedy(60)


@pytest.fixture
def stub(running: RunningServer) -> Any:
    return stub_of(running.channel)


def text_of(answers: Sequence[pb.ModelStreamInferResponse]) -> str:
    """Return the text of the responses of one request."""
    return "".join(outputs_of(each.infer_response)["text_output"][0] for each in answers)


@pytest.mark.parametrize("raw", [False, True])
async def test_a_stream_equals_the_single_response(stub: Any, *, raw: bool) -> None:
    wanted = ["text_output", "output_ids", "output_log_probs", "finish_reason", "num_output_tokens"]
    message = greedy(12, outputs=wanted)
    message.id = "seventeen"
    message = as_raw(message) if raw else message
    *chunks, last = await responses(stub, message)
    whole = outputs_of(await stub.ModelInfer(message))
    assert len(chunks) > 1
    assert {each.infer_response.id for each in (*chunks, last)} == {"seventeen"}
    assert [is_final(each) for each in (*chunks, last)] == [False] * len(chunks) + [True]
    assert text_of([*chunks, last]) == whole["text_output"][0]
    found = [outputs_of(each.infer_response) for each in chunks]
    assert [id_ for each in found for id_ in each["output_ids"][0]] == whole["output_ids"][0]
    logprobs = [value for each in found for value in each["output_log_probs"][0]]
    assert logprobs == pytest.approx(whole["output_log_probs"][0], abs=1e-3)
    assert "finish_reason" not in found[0]
    end = outputs_of(last.infer_response)
    assert (end["finish_reason"], end["num_output_tokens"]) == (["length"], [12])
    assert end["output_ids"] == [[]]


async def test_candidates_of_a_stream_are_told_apart(stub: Any) -> None:
    seed = tensor("seed", 3, "UINT64")
    message = request(seed, n=3, max_tokens=6, ignore_eos=True)
    *chunks, last = await responses(stub, message)
    texts = dict.fromkeys(range(3), "")
    for each in chunks:
        outputs = outputs_of(each.infer_response)
        texts[outputs["sequence_index"][0]] += outputs["text_output"][0]
    whole = outputs_of(await stub.ModelInfer(message))
    assert list(texts.values()) == whole["text_output"]
    assert outputs_of(last.infer_response)["sequence_index"] == [0, 1, 2]


async def test_beams_come_with_the_last_response(stub: Any) -> None:
    message = request(beam_width=3, max_tokens=6)
    answers = await responses(stub, message)
    expected = outputs_of(await stub.ModelInfer(message))["text_output"]
    assert outputs_of(answers[-1].infer_response)["text_output"] == expected


async def test_a_request_that_does_not_stream_has_one_response(stub: Any) -> None:
    message = greedy(5, text=["cup", "order"], stream=False)
    [answer] = await responses(stub, message)
    assert is_final(answer)
    alone = await stub.ModelInfer(greedy(5, text=["cup", "order"]))
    assert outputs_of(answer.infer_response) == outputs_of(alone)


async def test_only_requested_outputs_are_streamed(stub: Any) -> None:
    parameters = {"triton_enable_empty_final_response": True}
    [only] = await responses(stub, greedy(9, outputs=["finish_reason"], parameters=parameters))
    assert is_final(only)
    assert outputs_of(only.infer_response) == {"finish_reason": ["length"]}


async def test_requests_of_a_stream_run_at_the_same_time(running: RunningServer, stub: Any) -> None:
    messages = [greedy(20, text=f"cup {number}") for number in range(SLOTS)]
    for number, message in enumerate(messages):
        message.id = str(number)
    with closed_gate(running.engine) as gate:
        call = stub.ModelStreamInfer(iter(messages))
        await gate.until_unfinished(SLOTS)
        gate.open()
        answers = [each async for each in call]
    for message in messages:
        own = [each for each in answers if each.infer_response.id == message.id]
        assert text_of(own) == outputs_of(await stub.ModelInfer(message))["text_output"][0]
    order = [each.infer_response.id for each in answers]
    assert order != sorted(order)


async def test_a_full_queue_refuses_the_request_and_keeps_the_stream(
    running: RunningServer, stub: Any
) -> None:
    # As many as slots and queue hold, and one more.
    messages = [greedy(20, text=f"cup {number}") for number in range(SLOTS + 3)]
    with closed_gate(running.engine) as gate:
        call = stub.ModelStreamInfer(iter(messages))
        refusal = await call.read()
        gate.open()
        others = await rest_of(call)
    assert refusal.error_message.startswith("RESOURCE_EXHAUSTED: ")
    assert "retry in" in refusal.error_message
    assert sum(map(is_final, others)) == SLOTS + 2
    assert not any(each.error_message for each in others)


@pytest.mark.parametrize("cut", ["cancel", "close the connection", "deadline"])
async def test_a_stream_that_is_cut_ends_its_requests(running: RunningServer, cut: str) -> None:
    with closed_gate(running.engine) as gate:
        async with grpc.aio.insecure_channel(f"localhost:{running.port}") as channel:
            timeout = 3.0 if cut == "deadline" else None
            call = stub_of(channel).ModelStreamInfer(timeout=timeout)
            for _ in range(3):
                await call.write(LONG)
            if cut == "deadline":
                assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            else:
                await gate.until_unfinished(3)
            if cut == "cancel":
                call.cancel()
        await gate.until_unfinished(0)
    await running.wait_all_free()
    assert await stub_of(running.channel).ModelInfer(greedy(2))


async def test_a_client_that_leaves_while_responses_are_written_harms_no_one(
    running: RunningServer,
) -> None:
    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            async with grpc.aio.insecure_channel(f"localhost:{running.port}") as channel:
                call = stub_of(channel).ModelStreamInfer(iter([LONG] * 4))
                await call.read()
        await running.wait_all_free()
        # A cut call is reported at its end.
        streams = {"rpc": "ModelStreamInfer", "code": "CANCELLED"}
        await until(lambda: sum(streams.items() <= each.items() for each in logs) == 5)
    assert not [each for each in logs if each["log_level"] == "error"]


async def test_a_shutdown_ends_idle_streams(bundle: Path) -> None:
    async with serving(server_config(bundle)) as running:
        call = stub_of(running.channel).ModelStreamInfer()
        await call.write(greedy(2))
        while not is_final(await call.read()):
            pass
        await running.server.drain()
        await call.write(greedy(2))
        refusal = await call.read()
        assert refusal.error_message == "UNAVAILABLE: the server is shutting down"
        async with asyncio.timeout(SECONDS):
            await running.server.close()
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert await call.details() == "the server is shutting down"
