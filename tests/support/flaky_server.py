"""A gRPC server that fails as it is told and counts its calls, and both clients to ask it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from gpt2flow.client import AsyncClient, Client
from gpt2flow.inference.v1 import inference_pb2 as pb

BOTH = [Client, AsyncClient]


@dataclass(frozen=True)
class Failure:
    """How a call ends; a delay is told with google.rpc.RetryInfo."""

    code: grpc.StatusCode
    delay: float | None = None
    deltas: int = 0


@dataclass(frozen=True)
class Seen:
    """A call as it arrived."""

    at: float
    seconds: float
    metadata: dict[str, str | bytes]


@dataclass
class Flaky:
    """Fails once for each of `failures`, in order, and answers after that.

    Attributes:
        endless: Streams go on until they are cancelled, which `ended` counts.
        pause: Set by a test to let unary calls answer.
    """

    failures: list[Failure] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    endless: bool = False
    ended: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    pause: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.pause.set()

    def get_model(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        failure = self._arrived(context)
        if failure is not None:
            _fail(context, failure)
        self.pause.wait(10)
        return pb.GetModelResponse(model=pb.Model(name=request.model or "first"))

    def generate_stream(
        self, request: pb.GenerateStreamRequest, context: Any
    ) -> Iterator[pb.GenerateStreamResponse]:
        del request
        context.add_callback(self.ended.release)
        failure = self._arrived(context)
        while self.endless and context.is_active():
            yield _delta("again ")
            threading.Event().wait(0.01)
        for i in range(failure.deltas if failure else 2):
            yield _delta(f"{i} ")
        if failure is not None:
            _fail(context, failure)
        candidate = pb.Candidate(finish_reason=pb.FINISH_REASON_EOS)
        yield pb.GenerateStreamResponse(
            end=pb.StreamEnd(result=pb.GenerationResult(candidates=[candidate]))
        )

    def handlers(self) -> grpc.GenericRpcHandler:
        methods: dict[str, Any] = {
            "GetModel": grpc.unary_unary_rpc_method_handler(
                self.get_model,
                pb.GetModelRequest.FromString,
                pb.GetModelResponse.SerializeToString,
            ),
            "GenerateStream": grpc.unary_stream_rpc_method_handler(
                self.generate_stream,
                pb.GenerateStreamRequest.FromString,
                pb.GenerateStreamResponse.SerializeToString,
            ),
        }
        return grpc.method_handlers_generic_handler(
            "gpt2flow.inference.v1.InferenceService", methods
        )

    def _arrived(self, context: Any) -> Failure | None:
        metadata = dict(context.invocation_metadata())
        self.seen.append(Seen(monotonic(), context.time_remaining(), metadata))
        return self.failures.pop(0) if self.failures else None


@contextmanager
def listening(
    flaky: Flaky, credentials: grpc.ServerCredentials | None = None, port: int = 0
) -> Iterator[str]:
    """Serve, on a free port if none is given, and yields the address."""
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((flaky.handlers(),))
    if credentials is None:
        port = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def ask(kind: type[Any], address: str, question: Callable[[Any], Any], **settings: Any) -> Any:
    """Ask with a client of this kind; items of a stream come as a list."""
    if kind is Client:
        with Client(address, **settings) as client:
            answer = question(client)
            return list(answer) if isinstance(answer, Iterator) else answer

    async def run() -> Any:
        async with AsyncClient(address, **settings) as client:
            answer = question(client)
            if isinstance(answer, AsyncIterator):
                return [item async for item in answer]
            return await answer

    return asyncio.run(run())


def _delta(text: str) -> pb.GenerateStreamResponse:
    return pb.GenerateStreamResponse(delta=pb.CandidateDelta(text=text))


def _fail(context: Any, failure: Failure) -> None:
    if failure.delay is not None:
        delay = Duration()
        delay.FromNanoseconds(int(failure.delay * 1e9))
        detail = AnyMessage()
        detail.Pack(RetryInfo(retry_delay=delay))
        status = Status(code=failure.code.value[0], message="told to", details=[detail])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(failure.code, "told to")
