"""Limits of grammar compilation: no grammar blocks or crashes the server."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tests.support.grammars import CYCLE, DEADLY, ENDLESS, NESTED, constraint_of, endless
from tests.support.running_server import PROMPT, RunningServer, bad_fields, failure, greedy
from tests.support.waiting import until

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server.errors import GrammarError, OverloadedError
from gpt2flow.server.grammar.compilation import QUEUE_CAPACITY, WORKERS, SandboxedCompiler
from gpt2flow.server.grammar.constraint import GrammarCompiler

pytestmark = pytest.mark.process


@pytest.fixture
def compiler(grammars: GrammarCompiler) -> Iterator[SandboxedCompiler]:
    """Compiler whose time limit only endless compilations reach."""
    compiler = SandboxedCompiler(grammars, seconds=60.0)
    yield compiler
    compiler.close()


@pytest.fixture
def impatient(grammars: GrammarCompiler) -> Iterator[SandboxedCompiler]:
    """Compiler with a time limit of 2 s."""
    compiler = SandboxedCompiler(grammars, seconds=2.0, patience=400)
    yield compiler
    compiler.close()


@pytest.mark.parametrize(
    "kind,source,message",
    [
        ("lark", DEADLY, "takes too much memory, or is nested too deeply"),
        ("json_schema", NESTED, "nested too deeply"),
        ("regex", "(" * 5000 + "a" + ")" * 5000, "nest"),
        ("json_schema", CYCLE, "admits no text"),
    ],
)
def test_a_hostile_grammar_is_refused_and_the_next_one_compiles(
    compiler: SandboxedCompiler, kind: str, source: str, message: str
) -> None:
    with pytest.raises(GrammarError, match=message) as caught:
        compiler.compile(constraint_of(kind, source))
    assert "\n" not in str(caught.value)
    assert compiler.compile(constraint_of("choices", "yes", "no")).allowed().size


def test_an_endless_compilation_is_ended_and_not_repeated(impatient: SandboxedCompiler) -> None:
    with pytest.raises(GrammarError, match=r"^takes longer to compile than the limit of 2 s$"):
        impatient.compile(endless(1))
    assert impatient.has_verdict(endless(1))
    with pytest.raises(GrammarError, match="longer"):
        impatient.compile(endless(1))
    # The worker was killed by the first compilation; there was no second.
    assert not any(each._process for each in impatient._workers)
    assert impatient.compile(constraint_of("choices", "yes", "no")).allowed().size


def test_the_most_choices_allowed_compile(compiler: SandboxedCompiler) -> None:
    choices = [f"choice {number:04}" for number in range(4096)]
    assert compiler.compile(constraint_of("choices", *choices)).allowed().size


async def test_a_slow_grammar_blocks_neither_event_loop_nor_threads(
    compiler: SandboxedCompiler,
) -> None:
    slow = [asyncio.create_task(compiler.precompile(endless(i), f"{i}")) for i in range(WORKERS)]
    await asyncio.sleep(0)
    # These calls would block if grammars occupied the default thread pool.
    await asyncio.gather(*(asyncio.to_thread(os.getpid) for _ in range(64)))
    assert not any(task.done() for task in slow)
    await until(lambda: all(each._process for each in compiler._workers))
    compiler.close()
    await asyncio.gather(*slow, return_exceptions=True)  # A worker may have been starting.


async def test_the_compile_queue_is_bounded(compiler: SandboxedCompiler) -> None:
    waiting = [
        asyncio.create_task(compiler.precompile(constraint_of("regex", f"{ENDLESS}{i}"), "many"))
        for i in range(WORKERS + QUEUE_CAPACITY)
    ]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match=f"{QUEUE_CAPACITY} constraints wait"):
        await compiler.precompile(constraint_of("regex", "one too many"), "many")
    # The largest holder makes room for another caller.
    await compiler.precompile(constraint_of("regex", "one too many"), "one")
    *others, last = await asyncio.gather(*waiting, return_exceptions=True)
    assert set(others) == {None}
    assert isinstance(last, OverloadedError)
    await compiler.precompile(constraint_of("regex", "one more"), "many")


async def test_a_worker_is_started_before_the_first_constraint(running: RunningServer) -> None:
    assert isinstance(running.model.grammars, SandboxedCompiler)
    workers = running.model.grammars._workers
    await until(lambda: any(each._process for each in workers))


def test_closing_ends_the_workers(compiler: SandboxedCompiler) -> None:
    compiler.compile(constraint_of("regex", "a|b"))
    [process] = [each._process for each in compiler._workers if each._process]
    compiler.close()
    assert process.poll() is not None
    assert not Path(f"/proc/{process.pid}").exists()


async def test_a_stream_continues_while_hostile_grammars_are_refused(
    running: RunningServer,
) -> None:
    hostile = [pb.Constraint(lark=f"{DEADLY}\n// {i}") for i in range(3)]
    requests = [
        pb.GenerateRequest(prompts=[PROMPT], options=greedy(5, constraint=constraint))
        for constraint in hostile
    ]
    calls = [running.stub.Generate(request) for request in requests]
    messages = await running.stream(pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(70)))
    assert messages[-1].end.result.usage.completion_tokens == 70
    for call in calls:
        code, _, detail = await failure(call)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert bad_fields(detail) == ["options.constraint.lark"]
