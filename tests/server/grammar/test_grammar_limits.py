"""Limits of grammar compilation: no grammar blocks or crashes the server."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tests.support.running_server import PROMPT, RunningServer, bad_fields, failure, greedy

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server.errors import GrammarError, OverloadedError
from gpt2flow.server.grammar.compilation import QUEUE_CAPACITY, WORKERS, SandboxedCompiler
from gpt2flow.server.grammar.constraint import GrammarCompiler
from gpt2flow.server.params import ConstraintKind, ConstraintParams

# Compiles for minutes: its automaton has a state per remainder of a seven-digit divisor.
ENDLESS = json.dumps({"type": "integer", "multipleOf": 9_999_991})
# Overflows the stack of its compiler: each rule uses the next one twice.
DEADLY = 'start: r0\n{}\nr6000: "z"'.format(
    "\n".join(f'r{i}: r{i + 1} r{i + 1} | "{i}"' for i in range(6000))
)
# Compiles, and admits nothing.
CYCLE = json.dumps({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"})
NESTED = '{"items":' * 20_000 + "{}" + "}" * 20_000


def params(kind: str, *source: str) -> ConstraintParams:
    return ConstraintParams(ConstraintKind(kind), source)


@pytest.fixture
def compiler(grammars: GrammarCompiler) -> Iterator[SandboxedCompiler]:
    compiler = SandboxedCompiler(grammars, seconds=2.0)
    yield compiler
    compiler.close()


@pytest.mark.parametrize(
    "kind,source,message",
    [
        ("json_schema", ENDLESS, "takes longer to compile than the limit of 2 s"),
        ("lark", DEADLY, "takes too much memory, or is nested too deeply"),
        ("json_schema", NESTED, "nested too deeply"),
        ("regex", "(" * 5000 + "a" + ")" * 5000, "invalid regex"),
        ("json_schema", CYCLE, "NoExtension"),
    ],
)
def test_a_hostile_grammar_is_refused_and_the_next_one_compiles(
    compiler: SandboxedCompiler, kind: str, source: str, message: str
) -> None:
    with pytest.raises(GrammarError, match=message) as caught:
        compiler.compile(params(kind, source))
    assert "\n" not in str(caught.value)
    assert compiler.compile(params("choices", "yes", "no")).allowed().size


def test_a_refused_grammar_is_not_compiled_again(compiler: SandboxedCompiler) -> None:
    with pytest.raises(GrammarError):
        compiler.compile(params("json_schema", ENDLESS))
    assert compiler.has_verdict(params("json_schema", ENDLESS))
    with pytest.raises(GrammarError, match="longer"):
        compiler.compile(params("json_schema", ENDLESS))
    # The worker was killed by the first compilation; there was no second.
    assert not any(each._process for each in compiler._workers)


def test_the_most_choices_allowed_compile(compiler: SandboxedCompiler) -> None:
    choices = [f"choice {number:04}" for number in range(4096)]
    assert compiler.compile(params("choices", *choices)).allowed().size


async def test_a_slow_grammar_blocks_neither_event_loop_nor_threads(
    grammars: GrammarCompiler,
) -> None:
    compiler = SandboxedCompiler(grammars, seconds=60.0)
    sources = [f'{{"title": "{i}", {ENDLESS[1:]}' for i in range(WORKERS)]
    slow = [
        asyncio.create_task(compiler.precompile(params("json_schema", each), f"{each}"))
        for each in sources
    ]
    await asyncio.sleep(0)
    # These calls would block if grammars occupied the default thread pool.
    await asyncio.gather(*(asyncio.to_thread(os.getpid) for _ in range(64)))
    assert not any(task.done() for task in slow)
    while not all(each._process for each in compiler._workers):  # noqa: ASYNC110 - no event to await
        await asyncio.sleep(0.01)
    compiler.close()
    await asyncio.gather(*slow, return_exceptions=True)  # A worker may have been starting.


async def test_the_compile_queue_is_bounded(compiler: SandboxedCompiler) -> None:
    waiting = [
        asyncio.create_task(compiler.precompile(params("regex", f"{ENDLESS}{i}"), "many"))
        for i in range(WORKERS + QUEUE_CAPACITY)
    ]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match=f"{QUEUE_CAPACITY} constraints wait"):
        await compiler.precompile(params("regex", "one too many"), "many")
    # The largest holder gives way to another caller.
    await compiler.precompile(params("regex", "one too many"), "one")
    *others, last = await asyncio.gather(*waiting, return_exceptions=True)
    assert set(others) == {None}
    assert isinstance(last, OverloadedError)
    await compiler.precompile(params("regex", "one more"), "many")


async def test_a_worker_is_started_before_the_first_constraint(running: RunningServer) -> None:
    workers = running.model.grammars._workers
    async with asyncio.timeout(30):
        while not any(each._process for each in workers):  # noqa: ASYNC110 - no event to await
            await asyncio.sleep(0.01)


def test_closing_ends_the_workers(grammars: GrammarCompiler) -> None:
    compiler = SandboxedCompiler(grammars, seconds=1.0)
    compiler.compile(params("regex", "a|b"))
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
