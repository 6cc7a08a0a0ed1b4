"""Client of the fault tests: requests to a server and external checks."""

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.support.server_process import SLOTS, Footprint, ServerProcess
from tests.support.waiting import SECONDS, eventually

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub
from gpt2flow.server.grammar.compilation import WORKERS

PROMPT = pb.Prompt(text="Where is my order?")
# Pools keep as many threads as were busy at once, but never one per request.
POOLED = 8
# Most asyncio tasks of an idle server: its own, and one of gRPC for each method.
_OWN_TASKS = 30
# Descriptors of the pipes to the grammar workers that start on demand, all but the first.
_PIPES = 2 * (WORKERS - 1)


def greedy(
    max_new_tokens: int, prompt: pb.Prompt = PROMPT, priority: int = 0
) -> pb.GenerateStreamRequest:
    """Return a request for exactly `max_new_tokens` tokens, decoded greedily."""
    options = pb.GenerationOptions(
        sampling=pb.SamplingParams(temperature=0),
        stopping=pb.StoppingCriteria(max_new_tokens=max_new_tokens, ignore_eos=True),
        output=pb.OutputOptions(token_ids=True),
        priority=priority,
    )
    return pb.GenerateStreamRequest(prompt=prompt, options=options)


def generate(address: str, request: pb.GenerateStreamRequest) -> list[int]:
    """Return the token ids of a stream that must succeed."""
    with grpc.insecure_channel(address) as channel:
        stub: Any = InferenceServiceStub(channel)
        messages = list(stub.GenerateStream(request, timeout=SECONDS))
        assert messages[-1].WhichOneof("event") == "end"
        return [token for message in messages for token in message.delta.token_ids]


def canary(address: str) -> list[int]:
    """Return a fixed greedy answer; a healthy server always gives the same."""
    tokens = generate(address, greedy(24))
    assert len(tokens) == 24
    return tokens


def assert_serving(address: str) -> None:
    """Check that the health of the server and its model is SERVING."""
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", "m"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=SECONDS)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def assert_all_slots_free(address: str) -> None:
    """Check that one request can use all slots at once."""
    options = pb.GenerationOptions(
        sampling=pb.SamplingParams(n=SLOTS, seed=1),
        stopping=pb.StoppingCriteria(max_new_tokens=3, ignore_eos=True),
    )
    with grpc.insecure_channel(address) as channel:
        stub: Any = InferenceServiceStub(channel)
        request = pb.GenerateRequest(prompts=[PROMPT], options=options)
        [result] = stub.Generate(request, timeout=SECONDS).results
    assert len(result.candidates) == SLOTS


def assert_nothing_left(server: ServerProcess, before: Footprint) -> None:
    """Check that ended requests hold no request, slot, task, connection or thread.

    Args:
        server: Server whose clients have left.
        before: Its baseline.
    """
    assert_serving(server.address)
    assert_all_slots_free(server.address)
    eventually(lambda: server.metric("slots_free") == SLOTS)
    assert server.metric("requests_running") == server.metric("requests_waiting") == 0
    # The server sees closed connections a moment later.
    eventually(lambda: server.footprint().descriptors <= before.descriptors + _PIPES)
    eventually(lambda: server.metric("tasks") <= _OWN_TASKS)
    eventually(lambda: server.footprint().threads <= before.threads + POOLED)
