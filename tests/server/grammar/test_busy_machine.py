"""Verdicts on constraints while the machine is busy."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from tests.support.grammars import DEADLY, constraint_of, endless
from tests.support.running_server import PROMPT, RunningServer, failure, greedy
from tests.support.waiting import eventually, until

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server.errors import GrammarError, OverloadedError
from gpt2flow.server.grammar.compilation import VERDICT_SECONDS, SandboxedCompiler
from gpt2flow.server.grammar.constraint import GrammarCompiler
from gpt2flow.server.params import ConstraintParams

pytestmark = pytest.mark.process

# Processor time of one compilation.
SECONDS = 0.3
# Multiple of it after which a worker is given up that does not run, and one that runs.
STOPPED, RUNNING = 4, 400
HARMLESS = constraint_of("regex", "[a-c]{2}")


class ManualClock:
    """Clock that tests set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def compiler(grammars: GrammarCompiler, clock: ManualClock) -> Iterator[SandboxedCompiler]:
    """Compiler with one worker that runs."""
    compiler = SandboxedCompiler(grammars, SECONDS, patience=RUNNING, clock=clock)
    compiler.compile(constraint_of("regex", "a"))
    yield compiler
    compiler.close()


def worker_ids(compiler: SandboxedCompiler) -> list[int]:
    return [each._process.pid for each in compiler._workers if each._process]


def stop_workers(compiler: SandboxedCompiler) -> None:
    for process_id in worker_ids(compiler):
        os.kill(process_id, signal.SIGSTOP)


def be_patient(compiler: SandboxedCompiler, patience: float) -> None:
    for worker in compiler._workers:
        worker._patience = patience


def long_expression(size: int) -> ConstraintParams:
    return constraint_of("regex", "|".join(f"word{i}" for i in range(size // 9)))


def test_a_worker_that_was_stopped_for_a_while_gives_a_verdict(
    compiler: SandboxedCompiler,
) -> None:
    [process_id] = worker_ids(compiler)
    stop_workers(compiler)
    resume = threading.Timer(2 * SECONDS, os.kill, (process_id, signal.SIGCONT))
    resume.start()
    assert compiler.compile(HARMLESS).allowed().size
    assert worker_ids(compiler) == [process_id]


@pytest.mark.parametrize("params", [HARMLESS, long_expression(200_000)], ids=["short", "long"])
def test_a_grammar_is_not_judged_by_a_worker_that_does_not_run(
    compiler: SandboxedCompiler, params: ConstraintParams
) -> None:
    stop_workers(compiler)
    be_patient(compiler, STOPPED)
    with pytest.raises(OverloadedError, match="too busy to compile") as caught:
        compiler.compile(params)
    be_patient(compiler, RUNNING)
    assert caught.value.retry_after_seconds > 0
    assert not compiler.has_verdict(params)
    compiler.check(params)
    assert compiler.compile(HARMLESS).allowed().size


def test_a_grammar_is_not_judged_by_a_worker_that_others_ended(
    compiler: SandboxedCompiler,
) -> None:
    [process_id] = worker_ids(compiler)
    stop_workers(compiler)
    threading.Timer(SECONDS, os.kill, (process_id, signal.SIGKILL)).start()
    with pytest.raises(OverloadedError, match="ended by others"):
        compiler.compile(HARMLESS)
    assert compiler.compile(HARMLESS).allowed().size


@pytest.mark.parametrize(
    "params,message",
    [(endless(1), "takes longer"), (constraint_of("lark", DEADLY), "takes too much memory")],
    ids=["time", "memory"],
)
def test_a_verdict_on_cost_expires(
    compiler: SandboxedCompiler, clock: ManualClock, params: ConstraintParams, message: str
) -> None:
    for now, workers_left in ((0.0, 0), (VERDICT_SECONDS - 1, 1), (VERDICT_SECONDS + 1, 0)):
        clock.now = now
        if workers_left:
            compiler.compile(HARMLESS)  # Starts a worker, which a cached verdict leaves alone.
        with pytest.raises(GrammarError, match=message):
            compiler.compile(params)
        assert len(worker_ids(compiler)) == workers_left
    clock.now = 3 * VERDICT_SECONDS
    compiler.check(params)


def test_a_verdict_on_syntax_stays(compiler: SandboxedCompiler, clock: ManualClock) -> None:
    params = constraint_of("regex", "(ab")
    with pytest.raises(GrammarError, match="unclosed group"):
        compiler.compile(params)
    clock.now = 100 * VERDICT_SECONDS
    stop_workers(compiler)
    with pytest.raises(GrammarError, match="unclosed group"):
        compiler.compile(params)


async def test_only_a_harmful_grammar_deprioritizes_its_caller(
    compiler: SandboxedCompiler,
) -> None:
    stop_workers(compiler)
    be_patient(compiler, STOPPED)
    with pytest.raises(OverloadedError):
        await compiler.precompile(HARMLESS, "unlucky")
    be_patient(compiler, RUNNING)
    await compiler.precompile(endless(2), "hostile")
    assert compiler._pool.queue._penalized() == {"hostile"}


async def test_a_call_on_a_busy_machine_is_asked_to_retry(running: RunningServer) -> None:
    grammars = running.model.grammars
    assert isinstance(grammars, SandboxedCompiler)
    await until(lambda: grammars.has_verdict(constraint_of("choices", "a")))
    eventually(lambda: len(worker_ids(grammars)) == 1)
    be_patient(grammars, 0.5)
    stop_workers(grammars)
    options = greedy(5, constraint=pb.Constraint(regex=HARMLESS.source[0]))
    request = pb.GenerateRequest(prompts=[PROMPT], options=options)
    code, text, detail = await failure(running.stub.Generate(request))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert text.startswith("the machine is too busy to compile a new constraint; retry in")
    assert isinstance(detail, RetryInfo)
    be_patient(grammars, RUNNING)
    await asyncio.sleep(detail.retry_delay.ToTimedelta().total_seconds())
    [result] = (await running.stub.Generate(request)).results
    assert set(result.candidates[0].text) <= set("abc")
