"""Random requests: answers keep to the contract, and the server stays healthy.

The environment variable GPT2FLOW_FAULT_REQUESTS sets the number of requests. Any other number than
the default one draws new requests in every run.
"""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from grpc_status import rpc_status
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.support.fault_client import assert_nothing_left, canary
from tests.support.random_messages import SERVICE, requests
from tests.support.server_process import ServerProcess

DEFAULT, BATCH = 2000, 20
REQUESTS = int(os.environ.get("GPT2FLOW_FAULT_REQUESTS", DEFAULT))
_SECONDS = 120.0
# Longest message that gRPC takes; it refuses longer ones by itself.
MESSAGE_BYTES = 4 << 20
# Status codes of the default requests; other runs may give fewer.
ALL_CODES = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "DEADLINE_EXCEEDED"}


class Sender:
    """Concurrent client that sends raw requests and counts the status codes."""

    def __init__(self, server: ServerProcess) -> None:
        self.channel = grpc.insecure_channel(server.address)
        self.threads = ThreadPoolExecutor(8)
        self.answers: Counter[str] = Counter()
        self.undecodable = 0

    def send(self, request: tuple[str, bytes]) -> None:
        self.answers[self._status(*request)] += 1
        self.undecodable += decode_request(*request) is None

    def _status(self, rpc: str, wire: bytes) -> str:
        path = f"/{SERVICE.full_name}/{rpc}"
        channel: Any = self.channel
        try:
            if SERVICE.methods_by_name[rpc].server_streaming:
                for _ in channel.unary_stream(path)(wire, timeout=_SECONDS):
                    pass
            else:
                channel.unary_unary(path)(wire, timeout=_SECONDS)
        except grpc.RpcError as error:
            failed: Any = error
            check_error(rpc, wire, failed)
            return str(failed.code().name)
        return "OK"

    def close(self) -> None:
        self.threads.shutdown()
        self.channel.close()


def check_error(rpc: str, wire: bytes, error: Any) -> None:
    """Check the status code and the details of an error."""
    code, context = error.code(), f"{rpc}({wire[:2000]!r}): {error.code()}: {error.details()}"
    status = rpc_status.from_call(error)
    message = decode_request(rpc, wire)
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        assert status is not None, context
        detail = BadRequest()
        assert status.details[0].Unpack(detail), context
        assert detail.field_violations, context
        for violation in detail.field_violations:
            assert violation.description, context
            assert (message is None) == (not violation.field), context
            if message is not None:
                assert is_field(message, violation.field), context
    elif code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        if len(wire) <= MESSAGE_BYTES:
            assert status is not None, context
            assert status.details[0].Unpack(RetryInfo()), context
    elif code == grpc.StatusCode.DEADLINE_EXCEEDED:
        assert message is not None, context
        options: Any = message
        assert options.options.stopping.time_limit_ms, context
    else:
        assert code == grpc.StatusCode.NOT_FOUND, context


def decode_request(rpc: str, wire: bytes) -> Message | None:
    """Parse the request of an RPC; return None for invalid bytes."""
    kind: type[Message] = GetMessageClass(SERVICE.methods_by_name[rpc].input_type)
    try:
        return kind.FromString(wire)
    except DecodeError:
        return None


def is_field(message: Message, path: str) -> bool:
    """Return whether a path is a field of the message's type.

    An example of a path is `options.stopping.stop_strings[3]`.
    """
    descriptor: Any = message.DESCRIPTOR
    for name in path.split("."):
        field = descriptor.fields_by_name.get(name.partition("[")[0])
        if field is None:
            return False
        descriptor = field.message_type
    return True


@settings(
    max_examples=REQUESTS // BATCH,
    derandomize=REQUESTS == DEFAULT,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # A batch of requests in parallel does not shrink to a smaller one, and trying takes gigabytes.
    phases=[Phase.generate],
)
@given(st.lists(requests(), min_size=BATCH, max_size=BATCH))
def send_all(sender: Sender, batch: list[tuple[str, bytes]]) -> None:
    for _ in sender.threads.map(sender.send, batch):
        pass


def test_random_requests_leave_nothing_behind(server: ServerProcess) -> None:
    answer, before = canary(server.address), server.baseline()
    sender = Sender(server)
    send_all(sender)
    sender.close()
    assert sender.answers.total() >= REQUESTS
    assert set(sender.answers) >= ALL_CODES or REQUESTS < DEFAULT
    # Each class of requests is large enough to be meaningful.
    counts = (sender.undecodable, sender.answers["OK"], sender.answers["INVALID_ARGUMENT"])
    assert min(counts) >= REQUESTS // 20 or REQUESTS < DEFAULT, (counts, sender.answers)
    assert "internal_error" not in server.log.read_text()
    assert_nothing_left(server, before)
    assert canary(server.address) == answer
