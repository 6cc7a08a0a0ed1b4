import json
import subprocess
import sys
from pathlib import Path

import pytest
from peers.arrivals import decode_rate, first_token_ms, whole_rate
from peers.catalogue import STREAMS, Engine
from peers.environments import EnvironmentFailedError, make_environment
from peers.measurements import Burst, Turn, all_measurements
from peers.process import WorkerError, WorkerProcess
from peers.report.figures import GOALS, evaluate_goal, overhead, ratio
from peers.report.writer import write_report
from peers.session import Result, Session
from tests.support.project import PROJECT

MACHINE = {"processor": "P", "date": "D", "read_gb_per_second": 10.0}


def engine(key: str, *, peer: bool) -> Engine:
    return Engine(key, key.upper(), "somewhere" if peer else None, "none", "int8", STREAMS)


def result(key: str, *, peer: bool = True, **samples: float) -> Result:
    return Result(engine(key, peer=peer), samples={name: [each] for name, each in samples.items()})


def test_one_stream_decodes_from_its_first_token_to_its_last() -> None:
    streams = [[0.5, 0.6, 0.7, 0.9]]
    assert first_token_ms(streams) == 500
    assert decode_rate(streams) == pytest.approx(3 / 0.4)


def test_the_decode_rate_covers_the_time_in_which_all_streams_decode() -> None:
    # The second stream starts to decode at 2.0, and the first one ends at 4.0.
    streams = [[1.0, 1.5, 2.5, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0]]
    assert decode_rate(streams) == pytest.approx(5 / 2)
    assert whole_rate(streams) == pytest.approx(9 / 5)


def test_streams_that_never_overlap_get_the_rate_of_the_whole_run() -> None:
    streams = [[1.0, 2.0], [3.0, 4.0]]
    assert decode_rate(streams) == whole_rate(streams) == 1.0


def test_a_stream_that_ended_early_is_rejected() -> None:
    with pytest.raises(ValueError, match="2 tokens"):
        Burst(1).figures([[[0.1, 0.2]]])


def test_an_answer_that_did_not_end_is_rejected() -> None:
    with pytest.raises(ValueError, match="did not end"):
        Turn().figures([{}, {"tokens": 160, "seconds": 1.0, "text": "{"}])


def test_ratios_are_to_the_best_peer() -> None:
    own = result("gpt2flow-int8", peer=False, x1=200.0, first=50.0)
    results = [own, result("a", x1=100.0, first=40.0), result("b", x1=160.0, first=80.0)]
    first, rate = all_measurements(16, 1024)["x1"].columns
    assert ratio(results, own, rate) == 200 / 160
    assert ratio(results, own, first) == 50 / 40


def test_goals_compare_with_peers_or_with_an_absolute_limit() -> None:
    own = result("gpt2flow-int8", peer=False, x1=184.0, turn=30.0, memory=701.0)
    bare = result("engine-int8", peer=False, x1=200.0)
    server = result("llama-server-q4_0", x1=160.0, turn=120.0)
    fast = result("openvino-int8", turn=40.0)
    results = [own, bare, server, fast]
    goals = {goal.column: evaluate_goal(results, own, goal) for goal in GOALS}
    assert goals["x1"] == (1.15, True)
    assert goals["turn"] == (0.25, True)
    assert goals["memory"] == (701.0, False)
    assert goals["x8"] is None
    assert overhead(results, own) == (200 / 184, True)


def test_the_report_names_a_missing_peer_and_the_reason(tmp_path: Path) -> None:
    own = result("gpt2flow-int8", peer=False, x1=184.0, first=50.0)
    absent = Result(engine("absent", peer=True), missing="no wheel\nfor this one")
    failed = result("slow")
    failed.failures["x1"] = "the worker timed out"
    chosen = [all_measurements(16, 1024)["x1"]]
    write_report(tmp_path, [own, absent, failed], chosen, MACHINE, {"threads": 2})
    table = (tmp_path / "peers.md").read_text(encoding="utf-8")
    assert "| ABSENT | missing | missing |" in table
    assert "- ABSENT is missing: no wheel for this one" in table
    assert "| SLOW | failed | failed |" in table
    assert "- SLOW failed at x1: the worker timed out" in table
    engines = json.loads((tmp_path / "peers.json").read_text(encoding="utf-8"))["engines"]
    assert engines["absent"]["missing"] == "no wheel\nfor this one"
    assert engines["gpt2flow-int8"]["figures"]["x1"]["median"] == 184.0
    assert (tmp_path / "peers.svg").read_text(encoding="utf-8").startswith("<svg")


@pytest.mark.process
def test_a_peer_without_its_environment_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "absent.txt").write_text(f"{tmp_path}/no-such.whl\n", encoding="utf-8")
    monkeypatch.setattr("peers.environments._REQUIREMENTS", tmp_path)
    with pytest.raises(EnvironmentFailedError, match="ERROR"):
        make_environment("absent", tmp_path / "work")
    absent = Engine("absent", "Absent", "absent", "none", "int8", STREAMS)
    with Session(tmp_path / "work", {}, "model") as session:
        assert "ERROR" in (session.start(absent).missing or "")


WORKER = """
import os
from peers.workers.loop import Worker, run_worker
class FaultyWorker(Worker):
    def stream(self, prompts, new_tokens):
        print("library output")
        return [[float(new_tokens)] for _ in prompts]
    def memory(self):
        os._exit(3)
run_worker(FaultyWorker)
"""


@pytest.mark.process
def test_a_worker_returns_results_and_its_failures_raise(tmp_path: Path) -> None:
    setup = {"checkpoint": ".", "folder": ".", "variant": "", "threads": 1, "streams": 1}
    arguments = json.dumps({**setup, "capacity": 1})
    worker = WorkerProcess([sys.executable, "-c", WORKER, arguments], tmp_path / "log")
    try:
        assert worker.call("stream", seconds=60, prompts=[[1]], new_tokens=2) == [[2.0]]
        with pytest.raises(WorkerError, match="NotImplementedError"):
            worker.call("load", seconds=60)
        with pytest.raises(WorkerError, match="the worker exited with 3"):
            worker.call("memory", seconds=60)
    finally:
        worker.close()
    assert worker.ended


@pytest.mark.process
@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--only", "vllm"], "--only: unknown: vllm; choose from gpt2flow-int8"),
        (["--columns", "x2"], "--columns: unknown: x2; choose from x1, x4"),
        (["--repeats", "0"], "--repeats: must be at least 1"),
        (["--checkpoint", "/nowhere"], "has no config.json"),
        ([], "no checkpoint: give --checkpoint, or --text and --vocabulary"),
    ],
)
def test_an_invalid_argument_is_named(tmp_path: Path, arguments: list[str], message: str) -> None:
    completed = subprocess.run(
        [sys.executable, "-m", "peers", "--work", str(tmp_path), *arguments],
        cwd=PROJECT / "benchmarks",
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 2
    assert message in " ".join(completed.stderr.split())
