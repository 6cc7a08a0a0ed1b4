import importlib
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from peers.workers.http_worker import HttpWorker
from peers.workers.llama_server import LlamaServer
from peers.workers.loop import Setup, Worker
from peers.workers.transformers_server import TransformersServer
from tokenizers import Tokenizer

SETUP = Setup(Path(), Path(), "int8", threads=1, streams=8, capacity=1024)


class Clock:
    """Clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TimedWorker(Worker):
    """Worker whose steps take a known time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(SETUP)
        self._clock = clock

    def load(self) -> dict[str, Any]:
        self.unload()
        self._clock.now += 2.0
        return {}

    def unload(self) -> None:
        if self._clock.now == 0:
            self._clock.now = 100.0

    def stream(self, prompts: list[list[int]], new_tokens: int) -> list[list[float]]:
        return [[0.5] * new_tokens for _ in prompts]


def test_startup_is_the_load_and_the_first_token_without_the_end_of_the_last_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    assert TimedWorker(clock).startup([1]) == 2.5


class Pool(ThreadPoolExecutor):
    """Threads of the streams, which may end once all is measured."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        Pool.last = self
        self.futures: list[Future[Any]] = []
        self.measured = threading.Event()

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.futures.append(super().submit(function, *args, **kwargs))
        return self.futures[-1]

    def __exit__(self, *_: object) -> None:
        self.measured.set()
        self.shutdown()

    last: ClassVar["Pool"]


class ScriptedStreams(HttpWorker):
    """Prompts that begin with 0 are streams; another arrives beside them.

    Args:
        ends: True if the streams end before the other prompt is answered.
        failure: Error at which they end.
    """

    def __init__(self, *, ends: bool = False, failure: Exception | None = None) -> None:
        super().__init__(SETUP)
        self._ends, self._failure = ends, failure
        self._begun = threading.Semaphore(0)
        self.begun_before = 0

    def _tokens(self, prompt: list[int], new_tokens: int) -> Iterator[int]:
        if prompt[0]:
            while self._begun.acquire(blocking=False):
                self.begun_before += 1
            if self._ends:
                wait(Pool.last.futures, timeout=30)
            yield new_tokens
            return
        if self._failure:
            raise self._failure
        yield 0
        # Time for the other prompt to arrive, if a message without a token were a begin.
        time.sleep(0.05)
        self._begun.release()
        yield 1
        if not self._ends:
            assert Pool.last.measured.wait(30)


@pytest.fixture
def _pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peers.workers.http_worker.ThreadPoolExecutor", Pool)


@pytest.mark.usefixtures("_pool")
def test_a_prompt_is_timed_beside_streams_that_all_have_begun() -> None:
    worker = ScriptedStreams()
    assert worker.beside([[0]] * 3, [1], 8) >= 0
    assert worker.begun_before == 3


@pytest.mark.usefixtures("_pool")
def test_a_prompt_beside_streams_that_have_ended_is_refused() -> None:
    with pytest.raises(RuntimeError, match="a stream ended before"):
        ScriptedStreams(ends=True).beside([[0]] * 3, [1], 8)


@pytest.mark.usefixtures("_pool")
def test_a_stream_that_failed_is_the_reason_of_the_refusal() -> None:
    worker = ScriptedStreams(ends=True, failure=ConnectionResetError("the server has crashed"))
    with pytest.raises(ConnectionResetError, match="the server has crashed"):
        worker.beside([[0]] * 3, [1], 8)


@contextmanager
def streaming(lines: list[bytes]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Answer every POST with the lines; yield the port and the bodies."""
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            for line in lines:
                self.wfile.write(line + b"\n\n")

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, bodies
        finally:
            server.shutdown()
            thread.join()


def events(*contents: dict[str, Any]) -> list[bytes]:
    return [b"data: " + json.dumps(content).encode() for content in contents]


@pytest.mark.process
def test_llama_servers_tokens_are_counted_where_they_arrive() -> None:
    """A token that ends inside a character has no event."""
    lines = events(
        {"tokens": [5], "tokens_predicted": 1, "content": "A", "stop": False},
        {"tokens": [7], "tokens_predicted": 3, "content": "é", "stop": False},
        {"tokens": [], "tokens_predicted": 4, "content": "", "stop": True},
    )
    worker = LlamaServer(SETUP)
    with streaming(lines) as (port, bodies):
        worker._port = port
        assert list(worker._tokens([1, 2], 4)) == [1, 2, 1]
        (arrivals,) = worker.stream([[1, 2]], 4)
    assert len(arrivals) == 4
    assert arrivals[1] == arrivals[2]
    assert arrivals == sorted(arrivals)
    assert bodies[0]["prompt"] == [1, 2]
    assert bodies[0]["n_predict"] == 4
    assert bodies[0]["ignore_eos"]
    assert not bodies[0]["cache_prompt"]


def word(text: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": text, **more}], "object": "text_completion"}


@pytest.mark.process
def test_a_token_of_transformers_serve_is_an_event_with_a_word() -> None:
    usage = {"usage": {"completion_tokens": 3}}
    lines = events(
        word("26"), word(" 7"), word(" 7"), {**word("", finish_reason="length"), **usage}
    )
    worker = TransformersServer(SETUP)
    with streaming(lines) as (port, bodies):
        worker._port = port
        (arrivals,) = worker.stream([[12, 0, 345]], 3)
    assert len(arrivals) == 3
    assert bodies == [{"prompt": "12 0 345", "max_tokens": 3, "stream": True}]


@pytest.mark.process
def test_an_error_of_transformers_serve_fails_the_stream() -> None:
    worker = TransformersServer(SETUP)
    with streaming(events(word("26"), {"error": "out of blocks"})) as (port, _):
        worker._port = port
        with pytest.raises(RuntimeError, match="out of blocks"):
            worker.stream([[12]], 3)


def test_transformers_serve_reads_and_writes_token_ids(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    sizes = {"vocab_size": 500, "n_positions": 4, "n_embd": 2}
    (checkpoint / "config.json").write_text(json.dumps(sizes), encoding="utf-8")
    (checkpoint / "model.safetensors").write_bytes(bytes(100))
    setup = Setup(checkpoint, tmp_path, "fp32", threads=1, streams=16, capacity=1024)
    worker = TransformersServer(setup)
    worker.prepare()
    worker.prepare()
    served = tmp_path / "words"
    tokenizer = Tokenizer.from_file(str(served / "tokenizer.json"))
    assert tokenizer.encode("12 0 499").ids == [12, 0, 499]
    assert [tokenizer.decode([token]) for token in (12, 0, 499)] == ["12", "0", "499"]
    assert (served / "model.safetensors").read_bytes() == bytes(100)
    generation = json.loads((served / "generation_config.json").read_text(encoding="utf-8"))
    assert generation["eos_token_id"] == -1
    # All but 4 × 2 position embeddings of 4 bytes.
    assert worker.step_bytes() == 68


def test_transformers_serve_has_blocks_for_all_streams_beside_its_reserve() -> None:
    setup = Setup(Path(), Path(), "fp32", threads=3, streams=16, capacity=1000)
    command = TransformersServer(setup)._command("127.0.0.1", 80)
    blocks = int(command[command.index("--cb-num-blocks") + 1])
    assert 0.85 * blocks >= 16 * 4
    assert "OMP_NUM_THREADS=3" in command


class Handle:
    """Request that gets one token per step."""

    def __init__(self, prompt: list[int], tokens: int) -> None:
        self.prompt, self.left, self.unread = prompt, tokens, 0

    def get_status(self) -> str:
        return "running" if self.left else "finished"

    def can_read(self) -> bool:
        return self.unread > 0

    def read(self) -> dict[int, SimpleNamespace]:
        self.unread -= 1
        return {0: SimpleNamespace(generated_ids=[self.prompt[0]])}


class Pipeline:
    """Stand-in for OpenVINO GenAI's pipeline."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.handles: list[Handle] = []

    def add_request(self, _id: int, ids: Any, config: Any) -> Handle:
        self.handles.append(Handle(ids[0].tolist(), config.max_new_tokens))
        return self.handles[-1]

    def step(self) -> None:
        running = [handle for handle in self.handles if handle.left]
        self.batches.append(len(running))
        for handle in running:
            handle.left -= 1
            handle.unread += 1


@pytest.fixture
def openvino_http(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Module of the server, imported with stand-ins for OpenVINO's packages."""
    genai = SimpleNamespace(
        GenerationConfig=SimpleNamespace,
        GenerationStatus=SimpleNamespace(RUNNING="running"),
        StructuredOutputConfig=SimpleNamespace,
    )
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Tensor=lambda ids: ids))
    monkeypatch.setitem(sys.modules, "openvino_genai", genai)
    yield importlib.import_module("peers.workers.openvino_http")
    del sys.modules["peers.workers.openvino_http"]


def send(port: int, body: dict[str, Any] | None) -> socket.socket:
    """Send a POST of the body, or a GET without one."""
    data = json.dumps(body).encode() if body else b""
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    method = "POST" if body else "GET"
    client.sendall(f"{method} / HTTP/1.1\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    return client


def answer(client: socket.socket) -> list[Any]:
    """Return the lines of an answer, which has ended."""
    with client, client.makefile("rb") as file:
        head, _, body = file.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    return [json.loads(line) for line in body.splitlines()]


@pytest.mark.process
def test_the_server_on_openvino_steps_all_requests_that_have_arrived(openvino_http: Any) -> None:
    pipeline = Pipeline()
    server = openvino_http.Server("127.0.0.1", 0, pipeline)
    port = server.port
    clients = [send(port, {"prompt": [number], "new_tokens": number}) for number in (1, 2, 3)]
    probe = send(port, None)
    server.serve_once()
    assert pipeline.batches == [3]
    assert answer(probe) == []
    late = send(port, {"prompt": [9], "new_tokens": 1})
    server.serve_once()
    assert pipeline.batches == [3, 3]
    server.serve_once()
    assert [answer(client) for client in clients] == [[[1]], [[2]] * 2, [[3]] * 3]
    assert answer(late) == [[9]]


@pytest.mark.process
def test_the_server_on_openvino_awaits_the_rest_of_a_request(openvino_http: Any) -> None:
    pipeline = Pipeline()
    server = openvino_http.Server("127.0.0.1", 0, pipeline)
    body = json.dumps({"prompt": [4], "new_tokens": 1, "regex": "a"}).encode()
    client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    client.sendall(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:5])
    server.serve_once()
    assert not pipeline.handles
    client.sendall(body[5:])
    server.serve_once()
    assert answer(client) == [[4]]


@pytest.mark.process
def test_the_server_on_openvino_survives_a_client_that_goes(openvino_http: Any) -> None:
    pipeline = Pipeline()
    server = openvino_http.Server("127.0.0.1", 0, pipeline)
    socket.create_connection(("127.0.0.1", server.port), timeout=30).close()
    server.serve_once()
    gone = send(server.port, {"prompt": [4], "new_tokens": 8})
    server.serve_once()
    gone.close()
    client = send(server.port, {"prompt": [5], "new_tokens": 2})
    for _ in range(7):
        server.serve_once()
    assert answer(client) == [[5], [5]]
