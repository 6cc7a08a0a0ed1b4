"""gRPC service with injected failures, and calls to it with either client."""

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
from tests.support.waiting import SECONDS

from gpt2flow.client import AsyncClient, Client
from gpt2flow.inference.v1 import inference_pb2 as pb

BOTH = [Client, AsyncClient]


@dataclass(frozen=True)
class Failure:
    """Injected failure of one call.

    Attributes:
        code: Status of the call.
        delay: Retry delay in seconds, sent as google.rpc.RetryInfo; None sends none.
        deltas: Number of deltas that a stream sends before it fails.
    """

    code: grpc.StatusCode
    delay: float | None = None
    deltas: int = 0


@dataclass(frozen=True)
class ReceivedCall:
    """Call as the service received it.

    Attributes:
        at: Time of arrival, in seconds of the monotonic clock.
        seconds: Time left until the deadline.
        metadata: Metadata sent by the client.
    """

    at: float
    seconds: float
    metadata: dict[str, str | bytes]


@dataclass
class FlakyService:
    """Service that fails once per injected failure, in order, and then succeeds.

    Attributes:
        failures: Injected failures of the next calls.
        calls: Received calls.
        endless: True for streams that continue until they are cancelled.
        ended: Semaphore that counts ended streams.
        may_respond: Event that unary calls wait for; set by default.
    """

    failures: list[Failure] = field(default_factory=list)
    calls: list[ReceivedCall] = field(default_factory=list)
    endless: bool = False
    ended: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    may_respond: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_respond.set()

    def get_model(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        failure = self._receive(context)
        if failure is not None:
            _fail(context, failure)
        self.may_respond.wait(SECONDS)
        return pb.GetModelResponse(model=pb.Model(name=request.model or "first"))

    def generate_stream(
        self, request: pb.GenerateStreamRequest, context: Any
    ) -> Iterator[pb.GenerateStreamResponse]:
        del request
        context.add_callback(self.ended.release)
        failure = self._receive(context)
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

    def _receive(self, context: Any) -> Failure | None:
        metadata = dict(context.invocation_metadata())
        self.calls.append(ReceivedCall(monotonic(), context.time_remaining(), metadata))
        return self.failures.pop(0) if self.failures else None


@contextmanager
def listening(
    service: FlakyService, credentials: grpc.ServerCredentials | None = None, port: int = 0
) -> Iterator[str]:
    """Run the service until the block ends and yield its address.

    Port 0 selects a free one.
    """
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((service.handlers(),))
    if credentials is None:
        port = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def ask(
    kind: type[Any], address: str | list[str], call: Callable[[Any], Any], **settings: Any
) -> Any:
    """Return the result of a call by a client of class `kind`.

    A stream returns the list of its items.
    """
    if kind is Client:
        with Client(address, **settings) as client:
            result = call(client)
            return list(result) if isinstance(result, Iterator) else result

    async def run() -> Any:
        async with AsyncClient(address, **settings) as client:
            result = call(client)
            if isinstance(result, AsyncIterator):
                return [item async for item in result]
            return await result

    return asyncio.run(run())


def _delta(text: str) -> pb.GenerateStreamResponse:
    return pb.GenerateStreamResponse(delta=pb.CandidateDelta(text=text))


def _fail(context: Any, failure: Failure) -> None:
    if failure.delay is not None:
        delay = Duration()
        delay.FromNanoseconds(int(failure.delay * 1e9))
        detail = AnyMessage()
        detail.Pack(RetryInfo(retry_delay=delay))
        status = Status(code=failure.code.value[0], message="injected failure", details=[detail])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(failure.code, "injected failure")
