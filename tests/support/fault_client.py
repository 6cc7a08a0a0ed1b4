"""What fault tests ask of a server from outside."""

import time
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.support.server_process import SLOTS, Footprint, ServerProcess

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub
from gpt2flow.server.grammar.compilation import WORKERS

PROMPT = pb.Prompt(text="Where is my order?")
_SECONDS = 120.0
_POOLED = 8
# Of the server itself, and of gRPC: what an idle one has.
_OWN_TASKS = 20
# To the processes that try grammars, which start when they are needed.
_PIPES = 2 * WORKERS


def greedy(
    max_new_tokens: int, prompt: pb.Prompt = PROMPT, priority: int = 0
) -> pb.GenerateStreamRequest:
    """Ask for exactly so many tokens, the likeliest ones."""
    options = pb.GenerationOptions(
        sampling=pb.SamplingParams(temperature=0),
        stopping=pb.StoppingCriteria(max_new_tokens=max_new_tokens, ignore_eos=True),
        output=pb.OutputOptions(token_ids=True),
        priority=priority,
    )
    return pb.GenerateStreamRequest(prompt=prompt, options=options)


def generate(address: str, request: pb.GenerateStreamRequest) -> list[int]:
    """Return the tokens of a stream that must end well."""
    with grpc.insecure_channel(address) as channel:
        stub: Any = InferenceServiceStub(channel)
        messages = list(stub.GenerateStream(request, timeout=_SECONDS))
        assert messages[-1].WhichOneof("event") == "end"
        return [token for message in messages for token in message.delta.token_ids]


def canary(address: str) -> list[int]:
    """Return a greedy answer: the same as long as nothing has been broken."""
    tokens = generate(address, greedy(24))
    assert len(tokens) == 24
    return tokens


def assert_serving(address: str) -> None:
    """Health is SERVING for the server and its model."""
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", "m"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=_SECONDS)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def assert_all_slots_free(address: str) -> None:
    """One request that needs all slots at the same time is carried out: nobody holds any."""
    options = pb.GenerationOptions(
        sampling=pb.SamplingParams(n=SLOTS, seed=1),
        stopping=pb.StoppingCriteria(max_new_tokens=3, ignore_eos=True),
    )
    with grpc.insecure_channel(address) as channel:
        stub: Any = InferenceServiceStub(channel)
        request = pb.GenerateRequest(prompts=[PROMPT], options=options)
        [result] = stub.Generate(request, timeout=_SECONDS).results
    assert len(result.candidates) == SLOTS


def eventually(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.05)


def assert_nothing_left(server: ServerProcess, before: Footprint) -> None:
    """No request, slot, task, connection or thread is held by what is over."""
    assert_serving(server.address)
    assert_all_slots_free(server.address)
    eventually(lambda: server.metric("slots_free") == SLOTS)
    assert server.metric("requests_running") == server.metric("requests_waiting") == 0
    # That a client has closed its connections is noticed a moment later.
    eventually(lambda: server.footprint().descriptors <= before.descriptors + _PIPES)
    eventually(lambda: server.metric("tasks") <= _OWN_TASKS)
    # Pools keep as many threads as were busy at once; never one a request.
    assert server.footprint().threads <= before.threads + _POOLED
