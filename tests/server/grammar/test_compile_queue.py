"""Whose constraint is tried next: nobody waits for all that another one has sent."""

import asyncio
import json
from collections import Counter

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.grammar.test_grammar_limits import ENDLESS
from tests.support.running_server import PROMPT, Running, failure, greedy

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server.errors import OverloadedError, TimeLimitError
from gpt2flow.server.grammar.compilation import QUEUE_CAPACITY, WORKERS, SandboxedCompiler
from gpt2flow.server.grammar.compile_queue import PENALTY_SECONDS, CompileQueue, CompileRequest
from gpt2flow.server.grammar.constraint import GrammarCompiler
from gpt2flow.server.params import ConstraintKind, ConstraintParams


def endless(i: int) -> ConstraintParams:
    return ConstraintParams(ConstraintKind.JSON_SCHEMA, (f'{{"title": "{i}", {ENDLESS[1:]}',))


def regex(source: str) -> ConstraintParams:
    return ConstraintParams(ConstraintKind.REGEX, (source,))


class Line(CompileQueue):
    """A line whose time stands still until it is told."""

    def __init__(self, processes: int = 2, places: int = 64) -> None:
        self.now = 0.0
        super().__init__(processes, places, lambda: self.now)

    def enter(self, caller: str, count: int = 1) -> list[CompileRequest]:
        trials = [CompileRequest(regex("a"), caller, asyncio.Future()) for _ in range(count)]
        for trial in trials:
            self.add(trial)
        return trials

    def fill(self) -> list[CompileRequest]:
        """Take as many trials as there are processes for."""
        return list(iter(self.take, None))


def callers(trials: list[CompileRequest]) -> list[str]:
    return [trial.caller for trial in trials]


async def test_a_lone_caller_has_all_processes_and_shares_them_with_the_next_one() -> None:
    line = Line()
    line.enter("many", 9)
    first, second = line.fill()
    assert line.fill() == []
    line.enter("one", 2)
    line.end(first, 0.1, killed_worker=False)
    assert callers(line.fill()) == ["one"]
    line.end(second, 0.1, killed_worker=False)
    # Each has one now that runs or waits for its turn: no second one of either before that.
    assert callers(line.fill()) == ["many"]


async def test_who_cost_a_process_goes_behind_all_others_and_leaves_them_one() -> None:
    line = Line()
    line.enter("bad", 9)
    for trial in line.fill():
        line.end(trial, 2.0, killed_worker=True)
    [slow] = line.fill()
    line.enter("good", 5)
    for _ in range(5):
        [trial] = line.fill()
        assert trial.caller == "good"
        line.end(trial, 0.1, killed_worker=False)
    assert line.fill() == []
    line.end(slow, 2.0, killed_worker=False)
    assert callers(line.fill()) == ["bad"]
    line.now = PENALTY_SECONDS
    assert callers(line.fill()) == ["bad"]


@given(st.lists(st.sampled_from("abcd"), max_size=30), st.integers(0, 29))
def test_nobody_has_two_turns_while_another_waits(arrivals: list[str], late: int) -> None:
    async def check() -> None:
        line = Line(processes=1)
        waiting = {line.enter(caller)[0]: Counter[str]() for caller in arrivals[:late]}
        for caller in [*arrivals[late:], *"." * len(arrivals)]:
            if caller != ".":
                waiting |= {line.enter(caller)[0]: Counter()}
            if trial := line.take():
                del waiting[trial]
                oldest = {each.caller: turns for each, turns in reversed(waiting.items())}
                for waiter, turns in oldest.items():
                    turns[trial.caller] += waiter != trial.caller
                    assert max(turns.values()) <= 1
                for each, turns in waiting.items():
                    if each.caller == trial.caller:
                        turns.clear()
                line.end(trial, 0.1, killed_worker=False)
        assert not waiting

    asyncio.run(check())


async def test_a_full_line_makes_room_for_another_caller() -> None:
    line = Line(places=3)
    line.enter("many", 2)
    line.fill()
    *_, last = line.enter("many", 3)
    with pytest.raises(OverloadedError, match="3 constraints wait, limit 3"):
        line.enter("many")
    line.enter("one")
    assert isinstance(last.done.exception(), OverloadedError)
    with pytest.raises(OverloadedError):
        line.enter("one", 2)


async def test_who_leaves_the_line_has_no_turn() -> None:
    line = Line(1)
    line.enter("a")
    [first] = line.fill()
    [gone], [other] = line.enter("b"), line.enter("c")
    line.discard(gone)
    line.discard(first)
    line.end(first, 0.1, killed_worker=False)
    assert line.fill() == [other]


async def test_what_cannot_be_tried_in_time_is_refused_at_once() -> None:
    line = Line()
    for trial in line.enter("a", 2):
        assert line.take() is trial
        line.end(trial, 2.0, killed_worker=False)
    line.enter("a", 2)
    line.fill()
    *_, last = line.enter("a", 5)
    # Five trials of 2 s on two processes, the first for nothing, and half of that.
    line.check_deadline(last, deadline=2.01)
    with pytest.raises(TimeLimitError, match=r"would wait 5.000 s to be compiled.*in 1.990 s"):
        line.check_deadline(last, deadline=1.99)
    [other] = line.enter("b")
    line.check_deadline(other, deadline=0.01)


async def test_no_hostile_trial_goes_before_an_honest_one_that_waits(
    grammars: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = SandboxedCompiler(grammars, seconds=0.3)
    take, taken = tried._queue.take, list[str]()

    def noted() -> CompileRequest | None:
        trial = take()
        taken.extend([trial.caller] if trial else [])
        return trial

    monkeypatch.setattr(tried._queue, "take", noted)
    hostile = [
        asyncio.create_task(tried.precompile(endless(i), "hostile"))
        for i in range(WORKERS + QUEUE_CAPACITY)
    ]
    await asyncio.sleep(0)
    assert taken == ["hostile"] * WORKERS
    for i in range(1, 10):
        before = len(taken)
        await tried.precompile(regex(f"[a-c]{{{i}}}"), "honest")
        assert taken[before] == "honest"
    # They do not wait for ever either.
    assert any(tried.has_verdict(endless(i)) for i in range(WORKERS + QUEUE_CAPACITY))
    for each in hostile:
        each.cancel()
    tried.close()


async def test_a_request_does_not_wait_for_its_trial_beyond_its_time(
    running: Running,
) -> None:
    requests = []
    for partial in (False, True):
        schema = json.dumps({"title": f"{partial}", **json.loads(ENDLESS)})
        options = greedy(5, constraint=pb.Constraint(json_schema=schema))
        options.stopping.time_limit_ms = 100
        options.stopping.return_partial_on_time_limit = partial
        requests.append(pb.GenerateRequest(prompts=[PROMPT], options=options))
    code, text, _ = await failure(running.stub.Generate(requests[0]))
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert text == "the time of the request was up before its constraint was compiled"
    answer = await running.stub.Generate(requests[1])
    [candidate] = answer.results[0].candidates
    assert candidate.finish_reason == pb.FINISH_REASON_TIME_LIMIT
    assert not candidate.text


async def test_bad_fields_are_named_with_the_grammar_and_start_no_trial(running: Running) -> None:
    endless = pb.Constraint(json_schema=ENDLESS)
    for constraint, found in (
        (pb.Constraint(json_schema="{"), ["options.constraint.json_schema"]),
        (endless, []),
    ):
        options = greedy(5, constraint=constraint, priority=1000)
        request = pb.GenerateRequest(prompts=[PROMPT, pb.Prompt()], options=options)
        code, _, detail = await failure(running.stub.Generate(request))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        fields = [each.field for each in detail.field_violations]
        assert fields == ["options.priority", *found, "prompts[1]"]
    endless_params = ConstraintParams(ConstraintKind.JSON_SCHEMA, (ENDLESS,))
    assert not running.model.grammars.has_verdict(endless_params)
