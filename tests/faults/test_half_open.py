"""Connections that are open and dead: the server finds them out by itself, and so do clients."""

import asyncio
import contextlib
import json
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
    eventually,
    greedy,
)
from tests.support.flaky_server import BOTH, ask
from tests.support.held_slots import all_slots_held
from tests.support.server_process import SLOTS, ServerProcess, server_process
from tests.support.silent_proxy import silent_proxy

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
# Far more than the settings below allow, and far less than what gRPC would take by itself: a
# minute for a ping, two for a handshake, and for ever for a silent connection.
IN_TIME = 30.0
CONNECTIONS = "[connections]\nkeepalive_seconds = 1.0\nkeepalive_timeout_seconds = 1.0\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
# The first bytes of a header block of 16,384.
HEADERS = b"\x00\x40\x00\x01\x00\x00\x00\x00\x01" + bytes(20)
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "server.toml"
    path.write_text(CONNECTIONS)
    return path


@pytest.fixture(scope="module")
def server(bundle: Path, config: Path) -> Iterator[ServerProcess]:
    with server_process(bundle, config.parent, "--config", str(config)) as process:
        yield process


@pytest.fixture(scope="module")
def tls_server(
    bundle: Path, config: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("tls")
    pair = AuthorityFiles(folder).pair("server")
    tls = ("--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key))
    with server_process(bundle, folder, "--config", str(config), *tls) as process:
        yield process


def long() -> pb.GenerateStreamRequest:
    """Ask for a stream that takes all slots."""
    request = greedy(80)
    request.options.sampling.MergeFrom(pb.SamplingParams(temperature=1, n=SLOTS, seed=1))
    request.options.output.MergeFrom(pb.OutputOptions(logprobs=True, top_logprobs=20))
    return request


def rpcs(server: ServerProcess) -> Counter[tuple[str, str]]:
    """Return how often each RPC has ended in each way."""
    lines = (json.loads(line) for line in server.log.read_text().splitlines())
    return Counter((line["rpc"], line["code"]) for line in lines if line["event"] == "rpc")


@asynccontextmanager
async def direct(port: int) -> AsyncIterator[Any]:
    """A stub with a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield InferenceServiceStub(channel)


# --- What the server does about silent clients ---------------------------------------------


async def test_streams_of_a_client_that_falls_silent_end(server: ServerProcess) -> None:
    """Those that run and those that wait."""
    before, answer, told = server.footprint(), canary(server.address), rpcs(server)
    async with direct(server.port) as holding:
        with silent_proxy(server.port) as line:
            async with direct(line.port) as stub:
                async with all_slots_held(server, holding) as arrived:
                    calls = [stub.GenerateStream(long()) for _ in range(STREAMS)]
                    await arrived(STREAMS)
                    # In the middle of one message or another, as soon as there are any.
                    line.cut(after=50_000)
                assert await asyncio.to_thread(line.hung_up.acquire, timeout=IN_TIME)
                await asyncio.to_thread(eventually, lambda: server.metric("slots_free") == SLOTS)
                ended = rpcs(server) - told
                # A few were done before; all of them would take many times the keepalive's.
                assert ended["GenerateStream", "CANCELLED"] > STREAMS // 2, ended
                # The client knows nothing of it.
                assert not any(call.done() for call in calls)
    await asyncio.to_thread(assert_nothing_left, server, before)
    assert canary(server.address) == answer


def test_an_idle_connection_that_falls_silent_is_closed(server: ServerProcess) -> None:
    before = server.footprint()
    with (
        silent_proxy(server.port) as line,
        grpc.insecure_channel(f"127.0.0.1:{line.port}") as channel,
    ):
        stub: Any = InferenceServiceStub(channel)
        stub.ListModels(pb.ListModelsRequest(), timeout=60)
        line.cut()
        assert line.hung_up.acquire(timeout=IN_TIME)
        assert_nothing_left(server, before)


def gone(connection: socket.socket, seconds: float) -> bool:
    """Return whether the server hangs up within so many seconds, whatever it says before."""
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
    "said", [b"", PREFACE[:9], PREFACE, PREFACE + SETTINGS[:5], PREFACE + SETTINGS]
)
def test_a_connection_that_stops_short_is_closed(server: ServerProcess, said: bytes) -> None:
    before = server.footprint()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(said)
        assert gone(connection, IN_TIME)
        assert_nothing_left(server, before)


@pytest.mark.parametrize("said", [b"", HELLO[:3], HELLO[:100], HELLO])
def test_a_tls_handshake_that_never_ends_is_closed(tls_server: ServerProcess, said: bytes) -> None:
    before = tls_server.footprint()
    with socket.create_connection(("127.0.0.1", tls_server.port)) as connection:
        connection.sendall(said)
        assert gone(connection, IN_TIME)
        eventually(lambda: tls_server.footprint().descriptors <= before.descriptors)


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_a_handshake_byte_by_byte_is_closed(
    server: ServerProcess, tls_server: ServerProcess, *, tls: bool
) -> None:
    """Bytes that keep coming are no excuse: it is the whole handshake that has to be in time."""
    reached = tls_server if tls else server
    before = reached.footprint()
    with socket.create_connection(("127.0.0.1", reached.port)) as connection:
        for byte in (HELLO if tls else PREFACE + SETTINGS) * 2:
            connection.sendall(bytes([byte]))
            if gone(connection, 0.2):
                break
        else:
            raise AssertionError("it is open still")
        eventually(lambda: reached.footprint().descriptors <= before.descriptors)


def test_a_connection_byte_by_byte_is_nobodys_loss(server: ServerProcess) -> None:
    """It is alive as long as bytes come; when they stop in the middle of a message, it is not."""
    before, answer = server.footprint(), canary(server.address)
    with contextlib.ExitStack() as stack:
        open_ones = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            for _ in range(50)
        ]
        for each in open_ones:
            each.sendall(PREFACE + SETTINGS)
        for byte in HEADERS:
            for each in open_ones:
                each.sendall(bytes([byte]))
        assert_all_slots_free(server.address)
        assert canary(server.address) == answer
        assert all(gone(each, IN_TIME) for each in open_ones)
        assert_nothing_left(server, before)


# --- What a client does about a silent server ----------------------------------------------

SPEAKING = Options(
    Sampling(seed=1), max_new_tokens=80, ignore_eos=True, logprobs=True, top_logprobs=20
)
QUICK = Keepalive(seconds=0.5, timeout=0.5)


def reads(client: Any) -> Any:
    return client.stream("Where is my order?", SPEAKING)


def waits(client: Any) -> Any:
    return client.generate("Where is my order?", SPEAKING)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("question", [reads, waits])
@pytest.mark.parametrize(
    "settings,error",
    [
        ({"timeout": 1.0}, DeadlineExceededError),
        # Long before the deadline, or it would be the other error.
        ({"timeout": 600.0, "retry": None, "keepalive": QUICK}, UnavailableError),
    ],
    ids=["deadline", "keepalive"],
)
def test_a_client_is_told_of_a_silent_server(
    server: ServerProcess,
    kind: type[Any],
    question: Callable[[Any], Any],
    settings: dict[str, Any],
    error: type[ClientError],
) -> None:
    before = server.footprint()
    with silent_proxy(server.port) as line:
        # In the middle of the answer, which is larger; the handshake is smaller.
        line.cut(after=2000)
        with pytest.raises(error):
            ask(kind, f"127.0.0.1:{line.port}", question, **settings)
        assert line.hung_up.acquire(timeout=IN_TIME)
    assert_nothing_left(server, before)


@pytest.mark.parametrize("kind", BOTH)
def test_a_connection_may_take_its_time(server: ServerProcess, kind: type[Any]) -> None:
    """Between continents, the first answer takes longer than the pause between two attempts."""
    with silent_proxy(server.port, delay=0.2) as line:
        model = ask(kind, f"127.0.0.1:{line.port}", lambda c: c.model(), retry=None)
    assert model.name == "m"
