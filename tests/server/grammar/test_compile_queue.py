"""Compile queue of a running compiler: fairness and deadlines."""

import asyncio

import grpc
import pytest
from tests.support.grammars import ENDLESS, constraint_of, endless
from tests.support.running_server import PROMPT, RunningServer, failure, greedy

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server.grammar.compilation import QUEUE_CAPACITY, WORKERS, SandboxedCompiler
from gpt2flow.server.grammar.constraint import GrammarCompiler
from gpt2flow.server.work_pool import Job


@pytest.mark.process
async def test_no_hostile_request_is_compiled_before_a_waiting_honest_one(
    grammars: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = SandboxedCompiler(grammars, seconds=1.0, patience=400)
    take, taken = compiler._pool.queue.take, list[str]()

    def record() -> Job | None:
        job = take()
        taken.extend([job.caller] if job else [])
        return job

    monkeypatch.setattr(compiler._pool.queue, "take", record)
    hostile = [
        asyncio.create_task(compiler.precompile(endless(i), "hostile"))
        for i in range(WORKERS + QUEUE_CAPACITY)
    ]
    await asyncio.sleep(0)
    assert taken == ["hostile"] * WORKERS
    for i in range(1, 10):
        before = len(taken)
        await compiler.precompile(constraint_of("regex", f"[a-c]{{{i}}}"), "honest")
        assert taken[before] == "honest"
    # Hostile constraints are compiled, too.
    assert any(compiler.has_verdict(endless(i)) for i in range(WORKERS + QUEUE_CAPACITY))
    for each in hostile:
        each.cancel()
    compiler.close()


@pytest.mark.process
async def test_a_request_waits_for_compilation_no_longer_than_its_time_limit(
    running: RunningServer,
) -> None:
    requests = []
    for partial in (False, True):
        [schema] = endless(int(partial)).source
        options = greedy(5, constraint=pb.Constraint(json_schema=schema))
        options.stopping.time_limit_ms = 500
        options.stopping.return_partial_on_time_limit = partial
        requests.append(pb.GenerateRequest(prompts=[PROMPT], options=options))
    code, text, _ = await failure(running.stub.Generate(requests[0]))
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert text == "the time of the request was up before its constraint was compiled"
    answer = await running.stub.Generate(requests[1])
    [candidate] = answer.results[0].candidates
    assert candidate.finish_reason == pb.FINISH_REASON_TIME_LIMIT
    assert not candidate.text


@pytest.mark.process
async def test_bad_fields_are_named_with_the_grammar_and_start_no_compilation(
    running: RunningServer,
) -> None:
    for constraint, found in (
        (pb.Constraint(json_schema="{"), ["options.constraint.json_schema"]),
        (pb.Constraint(json_schema=ENDLESS), []),
    ):
        options = greedy(5, constraint=constraint, priority=1000)
        request = pb.GenerateRequest(prompts=[PROMPT, pb.Prompt()], options=options)
        code, _, detail = await failure(running.stub.Generate(request))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        fields = [each.field for each in detail.field_violations]
        assert fields == ["options.priority", *found, "prompts[1]"]
    assert isinstance(running.model.grammars, SandboxedCompiler)
    assert not running.model.grammars.has_verdict(constraint_of("json_schema", ENDLESS))
