"""Kinds of calls that are cancelled or fail, with their statuses."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from tests.leaks import raw_calls
from tests.leaks.raw_calls import RawConnection, raw_connection
from tests.support import http2
from tests.support.fault_client import PROMPT, greedy

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub

_SERVICE = f"/{pb.DESCRIPTOR.services_by_name['InferenceService'].full_name}/"
STREAM = f"{_SERVICE}GenerateStream"
TOKENS = 40
# Calls that one client has in flight, and calls of one raw connection.
_CONCURRENT, _CALLS_A_CONNECTION, _CONNECTIONS = 16, 20, 3
# Longer than a round trip takes, or shorter.
_MOMENTS = (0.0, 0.0005, 0.001, 0.002, 0.004)

_STREAMED = greedy(TOKENS)
_UNARY = pb.GenerateRequest(prompts=[PROMPT], options=_STREAMED.options)
_INVALID = pb.GenerateRequest(
    prompts=[PROMPT], options=pb.GenerationOptions(sampling=pb.SamplingParams(temperature=-1))
)


class Callers:
    """Clients of one server.

    Args:
        address: Address of the server.
        token: Token that the server accepts.
    """

    def __init__(self, address: str, token: str) -> None:
        self._address = address
        self.metadata: Mapping[str, str] = {"authorization": f"Bearer {token}"}
        self.statuses: Counter[str] = Counter()

    async def run(self, name: str, calls: int) -> None:
        """Make calls of one kind, and count their statuses."""
        if (send := KINDS.get(name)) is not None:
            await self._run_grpc(send.send, calls)
        else:
            await self._run_raw(RAW_KINDS[name], calls)

    async def _run_grpc(self, send: "_Send", calls: int) -> None:
        numbers = iter(range(calls))

        async def user(channel: grpc.aio.Channel) -> None:
            for _ in numbers:
                self.statuses[await _status(send(channel, tuple(self.metadata.items())))] += 1

        async with (
            grpc.aio.insecure_channel(self._address) as channel,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(_CONCURRENT):
                group.create_task(user(channel))

    async def _run_raw(self, kind: "_RawKind", calls: int) -> None:
        numbers = iter(range(0, calls, _CALLS_A_CONNECTION))

        async def user() -> None:
            for made in numbers:
                count = min(_CALLS_A_CONNECTION, calls - made)
                async with raw_connection(self._address, self.metadata, kind.settings) as each:
                    await kind.send(each, count)
                self.statuses["CANCELLED"] += count

        async with asyncio.TaskGroup() as group:
            for _ in range(_CONNECTIONS):
                group.create_task(user())


async def _status(call: Awaitable[None]) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    except asyncio.CancelledError:
        # grpc.aio raises this for a call that its own client cancelled.
        return "CANCELLED"
    return "OK"


_Metadata = tuple[tuple[str, str], ...]
_Send = Callable[[grpc.aio.Channel, _Metadata], Awaitable[None]]


@dataclass(frozen=True)
class Kind:
    """Kind of calls through gRPC's client.

    Attributes:
        send: Function that makes one call.
        statuses: Statuses that it may end with; the first must occur.
    """

    send: _Send
    statuses: tuple[str, ...]


@dataclass(frozen=True)
class _RawKind:
    send: Callable[[RawConnection, int], Awaitable[None]]
    settings: bytes = http2.SETTINGS


async def _cancel_stream_at_once(channel: grpc.aio.Channel, metadata: _Metadata) -> None:
    call: Any = _stub(channel).GenerateStream(_STREAMED, metadata=metadata)
    await asyncio.sleep(random.choice(_MOMENTS))
    call.cancel()
    await call.read()


async def _cancel_in_stream(channel: grpc.aio.Channel, metadata: _Metadata) -> None:
    call: Any = _stub(channel).GenerateStream(_STREAMED, metadata=metadata)
    for _ in range(random.randint(1, 6)):
        await call.read()
    call.cancel()
    await call.read()


async def _cancel_before_headers(channel: grpc.aio.Channel, metadata: _Metadata) -> None:
    call: Any = _stub(channel).Generate(_UNARY, metadata=metadata)
    await asyncio.sleep(random.choice(_MOMENTS))
    call.cancel()
    await call


async def _exceed_deadline(channel: grpc.aio.Channel, metadata: _Metadata) -> None:
    timeout = random.choice(_MOMENTS[1:])
    await _stub(channel).Generate(_UNARY, metadata=metadata, timeout=timeout)


async def _exceed_deadline_of_stream(channel: grpc.aio.Channel, metadata: _Metadata) -> None:
    timeout = random.choice([0.004, 0.01, 0.02])
    async for _ in _stub(channel).GenerateStream(_STREAMED, metadata=metadata, timeout=timeout):
        pass


async def _send_invalid(channel: grpc.aio.Channel, metadata: _Metadata) -> None:
    await _stub(channel).Generate(_INVALID, metadata=metadata)


async def _cancel_invalid(channel: grpc.aio.Channel, metadata: _Metadata) -> None:
    call: Any = _stub(channel).Generate(_INVALID, metadata=metadata)
    await asyncio.sleep(random.choice(_MOMENTS))
    call.cancel()
    await call


async def _send_undecodable(channel: grpc.aio.Channel, metadata: _Metadata) -> None:
    call: Any = channel.unary_unary(f"{_SERVICE}Generate")
    await call(b"\xff\xff\xff", metadata=metadata)


async def _send_to_unknown_model(channel: grpc.aio.Channel, metadata: _Metadata) -> None:
    await _stub(channel).GetModel(pb.GetModelRequest(model="nowhere"), metadata=metadata)


async def _send_to_unknown_method(channel: grpc.aio.Channel, metadata: _Metadata) -> None:
    call: Any = channel.unary_unary(f"{_SERVICE}Nothing")
    await call(b"", metadata=metadata)


async def _send_unauthenticated(channel: grpc.aio.Channel, _: _Metadata) -> None:
    await _stub(channel).Generate(_UNARY)


def _stub(channel: grpc.aio.Channel) -> Any:
    return InferenceServiceStub(channel)


_BYTES = _STREAMED.SerializeToString()
# The stream may have ended before.
_CANCELLED = ("CANCELLED", "OK")
# The server may see the deadline pass before the client does.
_LATE = ("DEADLINE_EXCEEDED", "CANCELLED", "OK")
KINDS = {
    "stream cancelled at once": Kind(_cancel_stream_at_once, _CANCELLED),
    "stream cancelled in the middle": Kind(_cancel_in_stream, _CANCELLED),
    "call cancelled before headers": Kind(_cancel_before_headers, _CANCELLED),
    "deadline passed at once": Kind(_exceed_deadline, _LATE),
    "deadline passed in a stream": Kind(_exceed_deadline_of_stream, _LATE),
    "invalid": Kind(_send_invalid, ("INVALID_ARGUMENT",)),
    "invalid and cancelled": Kind(_cancel_invalid, ("CANCELLED", "INVALID_ARGUMENT")),
    "undecodable": Kind(_send_undecodable, ("INVALID_ARGUMENT",)),
    "unknown model": Kind(_send_to_unknown_model, ("NOT_FOUND",)),
    "unknown method": Kind(_send_to_unknown_method, ("UNIMPLEMENTED",)),
    "unauthenticated": Kind(_send_unauthenticated, ("UNAUTHENTICATED",)),
}
RAW_KINDS = {
    "reset before its message": _RawKind(
        lambda connection, calls: raw_calls.reset_before_message(connection, STREAM, calls)
    ),
    "reset with its message": _RawKind(
        lambda connection, calls: raw_calls.reset_with_message(connection, STREAM, _BYTES, calls)
    ),
    "reset unread": _RawKind(
        lambda connection, calls: raw_calls.reset_unread(connection, STREAM, _BYTES, calls),
        http2.NO_WINDOW,
    ),
    "connection cut": _RawKind(
        lambda connection, calls: raw_calls.cut_in_stream(connection, STREAM, _BYTES, calls)
    ),
}
