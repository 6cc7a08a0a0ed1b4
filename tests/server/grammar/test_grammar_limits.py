"""No schema, expression or grammar hangs the server, or ends it."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tests.support.running_server import PROMPT, Running, bad_fields, failure, greedy

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server.errors import GrammarError, OverloadedError
from gpt2flow.server.grammar.compilation import QUEUE_CAPACITY, WORKERS, SandboxedCompiler
from gpt2flow.server.grammar.constraint import GrammarCompiler
from gpt2flow.server.params import ConstraintKind, ConstraintParams

# Compiles for minutes: the remainders of all numbers by one of seven digits.
ENDLESS = json.dumps({"type": "integer", "multipleOf": 9_999_991})
# Overflows the stack of whoever compiles it: each rule is the next one twice.
DEADLY = 'start: r0\n{}\nr6000: "z"'.format(
    "\n".join(f'r{i}: r{i + 1} r{i + 1} | "{i}"' for i in range(6000))
)
# Compiles, and admits nothing.
CYCLE = json.dumps({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"})
NESTED = '{"items":' * 20_000 + "{}" + "}" * 20_000


def params(kind: str, *source: str) -> ConstraintParams:
    return ConstraintParams(ConstraintKind(kind), source)


@pytest.fixture
def tried(grammars: GrammarCompiler) -> Iterator[SandboxedCompiler]:
    tried = SandboxedCompiler(grammars, seconds=2.0)
    yield tried
    tried.close()


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
    tried: SandboxedCompiler, kind: str, source: str, message: str
) -> None:
    with pytest.raises(GrammarError, match=message) as caught:
        tried.compile(params(kind, source))
    assert "\n" not in str(caught.value)
    assert tried.compile(params("choices", "yes", "no")).allowed().size


def test_what_was_refused_is_not_tried_again(tried: SandboxedCompiler) -> None:
    with pytest.raises(GrammarError):
        tried.compile(params("json_schema", ENDLESS))
    assert tried.has_verdict(params("json_schema", ENDLESS))
    with pytest.raises(GrammarError, match="longer"):
        tried.compile(params("json_schema", ENDLESS))
    # The process ended with the first trial; there was no other.
    assert not any(each._process for each in tried._workers)


def test_as_many_choices_as_may_be_can_be_chosen_from(tried: SandboxedCompiler) -> None:
    choices = [f"choice {number:04}" for number in range(4096)]
    assert tried.compile(params("choices", *choices)).allowed().size


async def test_a_slow_grammar_delays_neither_the_loop_nor_other_threads(
    grammars: GrammarCompiler,
) -> None:
    tried = SandboxedCompiler(grammars, seconds=60.0)
    sources = [f'{{"title": "{i}", {ENDLESS[1:]}' for i in range(WORKERS)]
    slow = [
        asyncio.create_task(tried.precompile(params("json_schema", each), f"{each}"))
        for each in sources
    ]
    await asyncio.sleep(0)
    # More than asyncio's own threads, were the grammars compiled in these.
    await asyncio.gather(*(asyncio.to_thread(os.getpid) for _ in range(64)))
    assert not any(task.done() for task in slow)
    while not all(each._process for each in tried._workers):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)
    tried.close()
    await asyncio.gather(*slow, return_exceptions=True)  # A process may have been starting.


async def test_the_line_of_grammars_is_bounded(tried: SandboxedCompiler) -> None:
    waiting = [
        asyncio.create_task(tried.precompile(params("regex", f"{ENDLESS}{i}"), "many"))
        for i in range(WORKERS + QUEUE_CAPACITY)
    ]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match=f"{QUEUE_CAPACITY} constraints wait"):
        await tried.precompile(params("regex", "one too many"), "many")
    # Whoever holds the most of it makes way for another.
    await tried.precompile(params("regex", "one too many"), "one")
    *others, last = await asyncio.gather(*waiting, return_exceptions=True)
    assert set(others) == {None}
    assert isinstance(last, OverloadedError)
    await tried.precompile(params("regex", "one more"), "many")


async def test_a_process_waits_for_the_first_constraint(running: Running) -> None:
    processes = running.model.grammars._workers
    async with asyncio.timeout(30):
        while not any(each._process for each in processes):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


def test_closing_ends_the_processes(grammars: GrammarCompiler) -> None:
    tried = SandboxedCompiler(grammars, seconds=1.0)
    tried.compile(params("regex", "a|b"))
    [process] = [each._process for each in tried._workers if each._process]
    tried.close()
    assert process.poll() is not None
    assert not Path(f"/proc/{process.pid}").exists()


async def test_a_stream_goes_on_while_hostile_grammars_are_refused(running: Running) -> None:
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
