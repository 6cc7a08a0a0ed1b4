"""Long texts: few at a time, and given up with their calls."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from tests.support.running_server import PROMPT, RunningServer, failure, greedy
from tests.support.waiting import until
from tokenizers import Tokenizer as HfTokenizer

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server.config.settings import RequestLimits
from gpt2flow.server.models.long_texts import (
    LONG,
    QUEUE_CAPACITY,
    VERY_LONG,
    WORKERS,
    AbandonedError,
    LongTexts,
    Progress,
)
from gpt2flow.server.tokenizer.tokenizer import Token, Tokenizer
from gpt2flow.server.work_pool import Job

LARGEST = RequestLimits().tokenize_bytes
TEXT = (
    ("Where is my order? 我想买两个蓝色的杯子。 " * LARGEST)
    .encode()[:LARGEST]
    .decode(errors="ignore")
)


class Held:
    """Tokenizations that stay at their start until the test lets them go.

    Attributes:
        started: Number that have started.
        yielded: Number of tokens that were taken.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started = 0
        self.yielded = 0
        self.go = threading.Event()
        original: Callable[..., Iterator[Token]] = Tokenizer.iter_tokens

        def held(tokenizer: Tokenizer, text: str, **options: Any) -> Iterator[Token]:
            self.started += 1
            assert self.go.wait(60)
            for token in original(tokenizer, text, **options):
                self.yielded += 1
                yield token

        monkeypatch.setattr(Tokenizer, "iter_tokens", held)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held = Held(monkeypatch)
    yield held
    held.go.set()


def left_calls(running: RunningServer, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Return a list that gets each job whose call has ended."""
    queue, left = running.model.texts._pool.queue, list[Job]()
    discard = queue.discard

    def record(job: Job) -> None:
        left.append(job)
        discard(job)

    monkeypatch.setattr(queue, "discard", record)
    return left


def long_call(running: RunningServer, **options: Any) -> Any:
    return running.stub.Tokenize(pb.TokenizeRequest(text=TEXT), **options)


@pytest.mark.process
async def test_a_text_of_the_largest_size_has_the_tokens_of_the_library(
    running: RunningServer, bundle: Path
) -> None:
    response = await running.stub.Tokenize(pb.TokenizeRequest(text=TEXT))
    oracle = HfTokenizer.from_file(str(bundle / "tokenizer.json")).encode(TEXT)
    assert [token.id for token in response.tokens] == oracle.ids
    assert b"".join(token.piece for token in response.tokens) == TEXT.encode()
    assert response.tokens[-1].end == len(TEXT.encode())


@pytest.mark.process
async def test_no_more_long_texts_than_workers_are_tokenized_at_once(
    running: RunningServer, held: Held
) -> None:
    calls = [long_call(running) for _ in range(WORKERS + 3)]
    await until(lambda: held.started == WORKERS)
    short = await running.stub.Score(pb.ScoreRequest(prompt=PROMPT, continuations=[PROMPT]))
    assert short.scores
    assert held.started == WORKERS
    held.go.set()
    lengths = {len((await call).tokens) for call in calls}
    assert len(lengths) == 1
    assert held.started == len(calls)


@pytest.mark.process
async def test_a_full_queue_of_long_texts_asks_to_retry(running: RunningServer, held: Held) -> None:
    calls = [long_call(running) for _ in range(WORKERS + QUEUE_CAPACITY)]
    queue = running.model.texts._pool.queue
    await until(lambda: held.started == WORKERS and len(queue._waiting) == QUEUE_CAPACITY)
    code, text, detail = await failure(long_call(running))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert text.startswith(f"text queue full: {QUEUE_CAPACITY} texts wait, limit {QUEUE_CAPACITY}")
    assert isinstance(detail, RetryInfo)
    for call in calls:
        call.cancel()


@pytest.mark.process
async def test_tokenization_ends_with_its_call(
    running: RunningServer, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = left_calls(running, monkeypatch)
    calls = [long_call(running) for _ in range(WORKERS)]
    await until(lambda: held.started == WORKERS)
    for call in calls:
        call.cancel()
    await until(lambda: len(left) == WORKERS)
    held.go.set()
    # Another one has its turn, so that the first ones have ended.
    total = len((await long_call(running)).tokens)
    assert held.yielded < total + total // 10


@pytest.mark.process
async def test_a_long_text_waits_no_longer_than_its_deadline(
    running: RunningServer, held: Held
) -> None:
    calls = [long_call(running) for _ in range(WORKERS)]
    await until(lambda: held.started == WORKERS)
    code, _, _ = await failure(long_call(running, timeout=0.3))
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    held.go.set()
    for call in calls:
        await call
    assert held.started == WORKERS


@pytest.mark.process
@pytest.mark.parametrize("unary", [True, False])
async def test_prompts_are_not_tokenized_for_a_caller_that_has_left(
    running: RunningServer, monkeypatch: pytest.MonkeyPatch, *, unary: bool
) -> None:
    encode, encoded, go = Tokenizer.encode, list[str](), threading.Event()

    def record(tokenizer: Tokenizer, text: str, **options: Any) -> list[int]:
        encoded.append(text)
        assert go.wait(60)
        return encode(tokenizer, text, **options)

    monkeypatch.setattr(Tokenizer, "encode", record)
    left = left_calls(running, monkeypatch)
    prompts = [pb.Prompt(text="x" * 96)] * 250
    if unary:
        call = running.stub.Generate(pb.GenerateRequest(prompts=prompts, options=greedy(1)))
    else:
        call = running.stub.Score(pb.ScoreRequest(prompt=PROMPT, continuations=prompts))
    await until(lambda: bool(encoded))
    call.cancel()
    await until(lambda: bool(left))
    go.set()
    await until(lambda: not running.model.texts._pool.queue._running.total())
    assert len(encoded) == 1


@pytest.mark.process
async def test_a_stream_goes_on_beside_the_longest_texts(running: RunningServer) -> None:
    request = pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(70))
    calls = [long_call(running) for _ in range(4)]
    messages = await running.stream(request)
    assert messages[-1].end.result.usage.completion_tokens == 70
    assert len({len((await call).tokens) for call in calls}) == 1


@pytest.mark.parametrize("size", [LONG, LONG + 1, VERY_LONG, VERY_LONG + 1])
async def test_the_size_of_a_text_says_where_it_is_processed(size: int) -> None:
    texts, thread = LongTexts(), threading.current_thread()
    used = await texts.run(lambda _: threading.current_thread(), size, "a")
    assert (used is thread) == (size <= LONG)
    assert used.name.startswith("text") == (size > VERY_LONG)
    texts.close()


def test_progress_ends_work_that_no_one_waits_for() -> None:
    abandoned = threading.Event()
    items = Progress(abandoned).through(iter(range(100_000)))
    assert next(items) == 0
    abandoned.set()
    with pytest.raises(AbandonedError):
        list(items)
    assert list(Progress().through(range(1000))) == list(range(1000))
