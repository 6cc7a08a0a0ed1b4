"""Queue of grammars to compile: fairness, limits and deadlines."""

import asyncio
from collections import Counter

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.grammars import ENDLESS, constraint_of, endless
from tests.support.running_server import PROMPT, RunningServer, failure, greedy

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server.errors import OverloadedError, TimeLimitError
from gpt2flow.server.grammar.compilation import QUEUE_CAPACITY, WORKERS, SandboxedCompiler
from gpt2flow.server.grammar.compile_queue import PENALTY_SECONDS, CompileQueue, CompileRequest
from gpt2flow.server.grammar.constraint import GrammarCompiler


class ManualClockQueue(CompileQueue):
    """Queue whose clock tests set."""

    def __init__(self, workers: int = 2, capacity: int = 64) -> None:
        self.now = 0.0
        super().__init__(workers, capacity, lambda: self.now)

    def enter(self, caller: str, count: int = 1) -> list[CompileRequest]:
        """Queue `count` requests of a caller and return them."""
        requests = [
            CompileRequest(constraint_of("regex", "a"), caller, asyncio.Future())
            for _ in range(count)
        ]
        for request in requests:
            self.add(request)
        return requests

    def dispatch(self) -> list[CompileRequest]:
        """Give each idle worker the next request and return these."""
        return list(iter(self.take, None))


def callers(requests: list[CompileRequest]) -> list[str]:
    return [request.caller for request in requests]


async def test_a_lone_caller_uses_all_workers_until_another_arrives() -> None:
    queue = ManualClockQueue()
    queue.enter("many", 9)
    first, second = queue.dispatch()
    assert queue.dispatch() == []
    queue.enter("one", 2)
    queue.end(first, 0.1, killed_worker=False)
    assert callers(queue.dispatch()) == ["one"]
    queue.end(second, 0.1, killed_worker=False)
    # Both callers have requests left, so that each gets one worker.
    assert callers(queue.dispatch()) == ["many"]


async def test_a_caller_that_killed_a_worker_is_deprioritized() -> None:
    queue = ManualClockQueue()
    queue.enter("bad", 9)
    for request in queue.dispatch():
        queue.end(request, 2.0, killed_worker=True)
    [slow] = queue.dispatch()
    queue.enter("good", 5)
    for _ in range(5):
        [request] = queue.dispatch()
        assert request.caller == "good"
        queue.end(request, 0.1, killed_worker=False)
    assert queue.dispatch() == []
    queue.end(slow, 2.0, killed_worker=False)
    assert callers(queue.dispatch()) == ["bad"]
    queue.now = PENALTY_SECONDS
    assert callers(queue.dispatch()) == ["bad"]


@given(st.lists(st.sampled_from("abcd"), max_size=30), st.integers(0, 29))
def test_no_caller_is_served_twice_while_another_waits(arrivals: list[str], late: int) -> None:
    async def check() -> None:
        queue = ManualClockQueue(workers=1)
        waiting = {queue.enter(caller)[0]: Counter[str]() for caller in arrivals[:late]}
        for caller in [*arrivals[late:], *"." * len(arrivals)]:
            if caller != ".":
                waiting |= {queue.enter(caller)[0]: Counter()}
            if request := queue.take():
                del waiting[request]
                oldest = {each.caller: turns for each, turns in reversed(waiting.items())}
                for waiter, turns in oldest.items():
                    turns[request.caller] += waiter != request.caller
                    assert max(turns.values()) <= 1
                for each, turns in waiting.items():
                    if each.caller == request.caller:
                        turns.clear()
                queue.end(request, 0.1, killed_worker=False)
        assert not waiting

    asyncio.run(check())


async def test_a_full_queue_evicts_the_largest_holder_for_another_caller() -> None:
    queue = ManualClockQueue(capacity=3)
    queue.enter("many", 2)
    queue.dispatch()
    *_, last = queue.enter("many", 3)
    with pytest.raises(OverloadedError, match="3 constraints wait, limit 3"):
        queue.enter("many")
    queue.enter("one")
    assert isinstance(last.done.exception(), OverloadedError)
    with pytest.raises(OverloadedError):
        queue.enter("one", 2)


async def test_a_discarded_request_is_skipped() -> None:
    queue = ManualClockQueue(1)
    queue.enter("a")
    [first] = queue.dispatch()
    [gone], [other] = queue.enter("b"), queue.enter("c")
    queue.discard(gone)
    queue.discard(first)
    queue.end(first, 0.1, killed_worker=False)
    assert queue.dispatch() == [other]


async def test_a_request_that_cannot_be_compiled_in_time_is_refused_immediately() -> None:
    queue = ManualClockQueue()
    for request in queue.enter("a", 2):
        assert queue.take() is request
        queue.end(request, 2.0, killed_worker=False)
    queue.enter("a", 2)
    queue.dispatch()
    *_, last = queue.enter("a", 5)
    # The first of five costs nothing; four of 2 s on two workers, times OPTIMISM, are 2 s.
    queue.check_deadline(last, deadline=2.01)
    with pytest.raises(TimeLimitError, match=r"would wait 5.000 s to be compiled.*in 1.990 s"):
        queue.check_deadline(last, deadline=1.99)
    [other] = queue.enter("b")
    queue.check_deadline(other, deadline=0.01)


@pytest.mark.process
async def test_no_hostile_request_is_compiled_before_a_waiting_honest_one(
    grammars: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = SandboxedCompiler(grammars, seconds=1.0)
    take, taken = compiler._queue.take, list[str]()

    def record() -> CompileRequest | None:
        request = take()
        taken.extend([request.caller] if request else [])
        return request

    monkeypatch.setattr(compiler._queue, "take", record)
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
    assert not running.model.grammars.has_verdict(constraint_of("json_schema", ENDLESS))
