"""Half-open connections: both server and client detect a silent peer."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.certificates import AuthorityFiles
from tests.support.fault_client import (
    assert_all_slots_free,
    assert_nothing_left,
    canary,
    greedy,
)
from tests.support.flaky_server import BOTH, ask
from tests.support.held_slots import all_slots_held
from tests.support.http2 import PREFACE, SETTINGS
from tests.support.server_process import SLOTS, ServerProcess, server_process
from tests.support.silent_proxy import silent_proxy
from tests.support.waiting import eventually

from gpt2flow.client import (
    ClientError,
    DeadlineExceededError,
    Keepalive,
    Options,
    Sampling,
    UnavailableError,
)
from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.inference.v1.inference_pb2_grpc import InferenceServiceStub

STREAMS = 100
# Far more seconds than `short_keepalive` allows, and far fewer than the defaults of gRPC: a minute
# for a ping, two for a handshake, and no limit for a silent connection.
DETECTION_SECONDS = 30.0
# First bytes of a header block of 16,384 bytes.
HEADERS = b"\x00\x40\x00\x01\x00\x00\x00\x00\x01" + bytes(20)
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256))


@pytest.fixture(scope="module")
def server(
    bundle: Path, short_keepalive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    with server_process(bundle, folder, "--config", str(short_keepalive)) as process:
        yield process


@pytest.fixture(scope="module")
def tls_server(
    bundle: Path, short_keepalive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("tls")
    pair = AuthorityFiles(folder).pair("server")
    tls = ("--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key))
    with server_process(bundle, folder, "--config", str(short_keepalive), *tls) as process:
        yield process


def long_request() -> pb.GenerateStreamRequest:
    """Return a request for a stream that needs all slots."""
    request = greedy(80)
    request.options.sampling.MergeFrom(pb.SamplingParams(temperature=1, n=SLOTS, seed=1))
    request.options.output.MergeFrom(pb.OutputOptions(logprobs=True, top_logprobs=20))
    return request


def rpcs(server: ServerProcess) -> Counter[tuple[str, str]]:
    """Return the number of ended RPCs per name and status code."""
    return Counter((line["rpc"], line["code"]) for line in server.events("rpc"))


def streams_ended(server: ServerProcess, before: Counter[tuple[str, str]]) -> int:
    """Return the number of streams that have ended since `before`."""
    ended = rpcs(server) - before
    return sum(count for (rpc, _), count in ended.items() if rpc == "GenerateStream")


@asynccontextmanager
async def direct(port: int) -> AsyncIterator[Any]:
    """Open a stub with a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield InferenceServiceStub(channel)


# --- Silent clients, detected by the server ------------------------------------------------


async def test_streams_of_a_silent_client_are_cancelled(server: ServerProcess) -> None:
    """Running and waiting streams are cancelled."""
    before, answer, rpcs_before = server.baseline(), canary(server.address), rpcs(server)
    async with direct(server.port) as holding:
        with silent_proxy(server.port) as proxy:
            async with direct(proxy.port) as stub:
                async with all_slots_held(server, holding) as arrived:
                    calls = [stub.GenerateStream(long_request()) for _ in range(STREAMS)]
                    await arrived(STREAMS)
                    # Cut in the middle of a message, once there are messages.
                    proxy.cut(after=50_000)
                assert await asyncio.to_thread(proxy.hung_up.acquire, timeout=DETECTION_SECONDS)
                await asyncio.to_thread(
                    eventually, lambda: streams_ended(server, rpcs_before) >= STREAMS
                )
                ended = rpcs(server) - rpcs_before
                # All of them would take many times the keepalive timeout, so that few can finish.
                assert ended["GenerateStream", "CANCELLED"] > STREAMS // 2, ended
                # The client has not noticed.
                assert not any(call.done() for call in calls)
    await asyncio.to_thread(assert_nothing_left, server, before)
    assert canary(server.address) == answer


def test_a_silent_idle_connection_is_closed(server: ServerProcess) -> None:
    before = server.baseline()
    with (
        silent_proxy(server.port) as proxy,
        grpc.insecure_channel(f"127.0.0.1:{proxy.port}") as channel,
    ):
        stub: Any = InferenceServiceStub(channel)
        stub.ListModels(pb.ListModelsRequest(), timeout=60)
        proxy.cut()
        assert proxy.hung_up.acquire(timeout=DETECTION_SECONDS)
        assert_nothing_left(server, before)


def is_closed(connection: socket.socket, seconds: float) -> bool:
    """Return whether the server closes the connection in time."""
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize(
    "sent", [b"", PREFACE[:9], PREFACE, PREFACE + SETTINGS[:5], PREFACE + SETTINGS]
)
def test_an_incomplete_preface_is_closed(server: ServerProcess, sent: bytes) -> None:
    before = server.baseline()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(sent)
        assert is_closed(connection, DETECTION_SECONDS)
        assert_nothing_left(server, before)


@pytest.mark.parametrize("sent", [b"", HELLO[:3], HELLO[:100], HELLO])
def test_an_incomplete_tls_handshake_is_closed(tls_server: ServerProcess, sent: bytes) -> None:
    before = tls_server.baseline()
    with socket.create_connection(("127.0.0.1", tls_server.port)) as connection:
        connection.sendall(sent)
        assert is_closed(connection, DETECTION_SECONDS)
        eventually(lambda: tls_server.footprint().descriptors <= before.descriptors)


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_a_handshake_sent_byte_by_byte_is_closed(
    server: ServerProcess, tls_server: ServerProcess, *, tls: bool
) -> None:
    """The timeout covers the whole handshake, not the pauses between bytes."""
    reached = tls_server if tls else server
    before = reached.baseline()
    with socket.create_connection(("127.0.0.1", reached.port)) as connection:
        for byte in (HELLO if tls else PREFACE + SETTINGS) * 2:
            connection.sendall(bytes([byte]))
            if is_closed(connection, 0.2):
                break
        else:
            raise AssertionError("the server has not closed the connection")
        eventually(lambda: reached.footprint().descriptors <= before.descriptors)


def test_connections_fed_byte_by_byte_disturb_no_other(server: ServerProcess) -> None:
    """They stay open as long as bytes arrive, and are closed afterwards."""
    before, answer = server.baseline(), canary(server.address)
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            for _ in range(50)
        ]
        for each in connections:
            each.sendall(PREFACE + SETTINGS)
        for byte in HEADERS:
            for each in connections:
                each.sendall(bytes([byte]))
        assert_all_slots_free(server.address)
        assert canary(server.address) == answer
        assert all(is_closed(each, DETECTION_SECONDS) for each in connections)
        assert_nothing_left(server, before)


# --- Silent servers, detected by the client ------------------------------------------------

OPTIONS = Options(
    Sampling(seed=1), max_new_tokens=80, ignore_eos=True, logprobs=True, top_logprobs=20
)
SHORT_KEEPALIVE = Keepalive(seconds=0.5, timeout=0.5)


def stream(client: Any) -> Any:
    return client.stream("Where is my order?", OPTIONS)


def generate(client: Any) -> Any:
    return client.generate("Where is my order?", OPTIONS)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("call", [stream, generate])
@pytest.mark.parametrize(
    "settings,error",
    [
        ({"timeout": 3.0}, DeadlineExceededError),
        # Keepalive must fire long before this deadline.
        ({"timeout": 600.0, "retry": None, "keepalive": SHORT_KEEPALIVE}, UnavailableError),
    ],
    ids=["deadline", "keepalive"],
)
def test_a_client_reports_a_silent_server(
    server: ServerProcess,
    kind: type[Any],
    call: Callable[[Any], Any],
    settings: dict[str, Any],
    error: type[ClientError],
) -> None:
    before = server.baseline()
    with silent_proxy(server.port) as proxy:
        # Cut in the middle of the answer: the handshake is smaller, the answer larger.
        proxy.cut(after=2000)
        with pytest.raises(error):
            ask(kind, f"127.0.0.1:{proxy.port}", call, **settings)
        assert proxy.hung_up.acquire(timeout=DETECTION_SECONDS)
    assert_nothing_left(server, before)


@pytest.mark.parametrize("kind", BOTH)
def test_a_client_waits_for_a_slow_connection(server: ServerProcess, kind: type[Any]) -> None:
    """The round trip is longer than the pause between two connection attempts."""
    with silent_proxy(server.port, delay=0.2) as proxy:
        model = ask(kind, f"127.0.0.1:{proxy.port}", lambda c: c.model(), retry=None)
    assert model.name == "m"
