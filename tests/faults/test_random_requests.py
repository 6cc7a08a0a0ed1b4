"""Whatever is asked, the server answers with a status of the contract and stays healthy.

GPT2FLOW_FAULT_REQUESTS sets how many requests are sent; other than the usual
number, they are other ones in each run.
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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.fault_client import assert_nothing_left, canary
from tests.support.random_messages import SERVICE, requests
from tests.support.server_process import ServerProcess

USUAL, AT_ONCE = 2000, 20
REQUESTS = int(os.environ.get("GPT2FLOW_FAULT_REQUESTS", USUAL))
_SECONDS = 120.0
# What the usual requests bring; a random run may bring fewer.
EVERY_KIND = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "DEADLINE_EXCEEDED"}


class Sender:
    """Sends bytes to any RPC, several at once, and counts the answers."""

    def __init__(self, server: ServerProcess) -> None:
        self.channel = grpc.insecure_channel(server.address)
        self.threads = ThreadPoolExecutor(8)
        self.answers: Counter[str] = Counter()
        self.undecodable = 0

    def send(self, request: tuple[str, bytes]) -> None:
        self.answers[self._status(*request)] += 1
        self.undecodable += decoded(*request) is None

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
    code, said = error.code(), f"{rpc}({wire!r}): {error.code()}: {error.details()}"
    status = rpc_status.from_call(error)
    message = decoded(rpc, wire)
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        assert status is not None, said
        detail = BadRequest()
        assert status.details[0].Unpack(detail), said
        assert detail.field_violations, said
        for violation in detail.field_violations:
            assert violation.description, said
            assert (message is None) == (not violation.field), said
            if message is not None:
                assert is_field(message, violation.field), said
    elif code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        assert status is not None, said
        assert status.details[0].Unpack(RetryInfo()), said
    elif code == grpc.StatusCode.DEADLINE_EXCEEDED:
        assert message is not None, said
        options: Any = message
        assert options.options.stopping.time_limit_ms, said
    else:
        assert code == grpc.StatusCode.NOT_FOUND, said


def decoded(rpc: str, wire: bytes) -> Message | None:
    """Return the message that the bytes are, if they are one."""
    kind: type[Message] = GetMessageClass(SERVICE.methods_by_name[rpc].input_type)
    try:
        return kind.FromString(wire)
    except DecodeError:
        return None


def is_field(message: Message, path: str) -> bool:
    """Whether a path such as `options.stopping.stop_strings[3]` is one of the message's type."""
    descriptor: Any = message.DESCRIPTOR
    for name in path.split("."):
        field = descriptor.fields_by_name.get(name.partition("[")[0])
        if field is None:
            return False
        descriptor = field.message_type
    return True


@settings(
    max_examples=REQUESTS // AT_ONCE,
    derandomize=REQUESTS == USUAL,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(requests(), min_size=AT_ONCE, max_size=AT_ONCE))
def send_all(sender: Sender, batch: list[tuple[str, bytes]]) -> None:
    for _ in sender.threads.map(sender.send, batch):
        pass


def test_random_requests_leave_the_server_as_it_was(server: ServerProcess) -> None:
    answer, before = canary(server.address), server.footprint()
    sender = Sender(server)
    send_all(sender)
    sender.close()
    assert sender.answers.total() >= REQUESTS
    assert set(sender.answers) == EVERY_KIND or REQUESTS < USUAL
    # Of each sort there are enough to say something.
    sorts = (sender.undecodable, sender.answers["OK"], sender.answers["INVALID_ARGUMENT"])
    assert min(sorts) >= REQUESTS // 20 or REQUESTS < USUAL, (sorts, sender.answers)
    assert "internal_error" not in server.log.read_text()
    assert_nothing_left(server, before)
    assert canary(server.address) == answer
