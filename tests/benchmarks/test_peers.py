import json
import subprocess
import sys
from pathlib import Path

import pytest
from peers.arrivals import decode_rate, first_token_ms, whole_rate
from peers.catalogue import ENGINES, STREAMS, Engine
from peers.environments import EnvironmentFailedError, make_environment
from peers.measurements import (
    LONG_POSITION,
    NEW_TOKENS,
    PROMPT_TOKENS,
    Beside,
    Burst,
    LongBurst,
    Startup,
    Turn,
    all_measurements,
)
from peers.process import WorkerError, WorkerProcess
from peers.prompts import Prompts
from peers.report.figures import (
    GOALS,
    best_peer,
    evaluate_goal,
    goal_peer,
    overhead,
    ratio,
    share_of_bandwidth,
)
from peers.report.writer import write_report
from peers.session import Result, Session
from tests.support.project import PROJECT
from tokenizers import Tokenizer, models, pre_tokenizers

MACHINE = {"processor": "P", "date": "D", "read_gb_per_second": 10.0}
GOAL = {goal.title: goal for goal in GOALS}


def engine(key: str, *, peer: bool, kind: str = "library", variant: str = "int8") -> Engine:
    environment = "somewhere" if peer else None
    return Engine(key, key.upper(), kind, environment, "none", variant, STREAMS)


def result(
    key: str, *, peer: bool = True, kind: str = "library", variant: str = "int8", **samples: float
) -> Result:
    return Result(
        engine(key, peer=peer, kind=kind, variant=variant),
        samples={name: [each] for name, each in samples.items()},
    )


@pytest.fixture
def prompts(tmp_path: Path) -> Prompts:
    """Prompts of a text of 40,000 one-letter words."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "eval.txt").write_text("a b " * 20_000, encoding="utf-8")
    return Prompts(tmp_path)


def test_no_two_engines_share_a_name() -> None:
    """The table, the plot and the list of failures show it."""
    assert len({each.name for each in ENGINES}) == len({each.key for each in ENGINES})
    assert len(ENGINES) == len({each.key for each in ENGINES})


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


@pytest.mark.parametrize("new_tokens", [2, 129, 448])
def test_long_streams_stand_at_their_position_and_fit_the_context(
    prompts: Prompts, new_tokens: int
) -> None:
    ((do, arguments),) = LongBurst(16, new_tokens).requests(prompts)
    assert do == "stream"
    assert arguments["new_tokens"] == new_tokens
    lengths = {len(prompt) for prompt in arguments["prompts"]}
    assert len(arguments["prompts"]) == 16
    assert len(lengths) == 1
    length = lengths.pop()
    assert length + new_tokens / 2 == pytest.approx(LONG_POSITION, abs=1)
    assert length + new_tokens <= 1024


def test_long_streams_have_a_decode_rate_alone() -> None:
    streams = [[1.0, 1.5, 2.5], [1.5, 2.0, 2.5]]
    burst = LongBurst(2, 3)
    assert burst.figures([streams]) == {"long2": decode_rate(streams)} == {"long2": 3.0}
    assert [column.key for column in burst.columns] == ["long2"]
    with pytest.raises(ValueError, match="2 tokens"):
        burst.figures([[[1.0, 1.5, 2.5], [1.5, 2.0]]])


def test_a_prompt_arrives_beside_streams_that_go_on(prompts: Prompts) -> None:
    """Their tokens do not become fewer with `--new-tokens`."""
    beside = all_measurements(16, 1024, 16)["beside8"]
    ((do, arguments),) = beside.requests(prompts)
    assert do == "beside"
    assert arguments["new_tokens"] == NEW_TOKENS
    assert [len(prompt) for prompt in arguments["prompts"]] == [PROMPT_TOKENS] * 8
    assert len(arguments["prompt"]) == PROMPT_TOKENS
    assert Beside(8).figures([0.25]) == {"beside8": 250.0}
    assert not beside.columns[0].higher


def test_startup_is_one_request_and_counts_in_seconds(prompts: Prompts) -> None:
    ((do, arguments),) = Startup().requests(prompts)
    assert do == "startup"
    assert len(arguments["prompt"]) == PROMPT_TOKENS
    assert Startup().figures([1.25]) == {"startup": 1.25}


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
    own = result("gpt2flow-int8", peer=False, x8=288.0, turn=30.0, memory=701.0, x1=100.0)
    bare = result("engine-int8", peer=False, x1=105.0)
    server = result("llama-server-q4_0", x8=160.0, turn=20.0)
    results = [own, bare, server, result("openvino-int8", turn=120.0)]
    assert evaluate_goal(results, own, GOAL["×8"]) == (1.8, True)
    assert evaluate_goal(results, own, GOAL["agent turn, against OpenVINO"]) == (0.25, True)
    assert evaluate_goal(results, own, GOAL["memory of int8, MB"]) == (701.0, False)
    assert evaluate_goal(results, own, GOAL["×4"]) is None
    assert overhead(results, own) == (1.05, True)


def test_a_goal_against_servers_leaves_libraries_out() -> None:
    own = result("gpt2flow-int8", peer=False, kind="server, gRPC", x16=500.0)
    library = result("library", x16=400.0)
    server = result("server", kind="server, HTTP", x16=200.0)
    results = [own, library, server]
    goal = GOAL["×16, against servers"]
    assert best_peer(results, "x16", higher=True) == (400.0, library)
    assert best_peer(results, "x16", higher=True, kind="server") == (200.0, server)
    assert goal_peer(results, goal) == (200.0, server)
    assert evaluate_goal(results, own, goal) == (2.5, True)
    assert evaluate_goal([own, library], own, goal) is None


def test_a_goal_of_one_variant_is_none_of_the_others() -> None:
    int8 = result("gpt2flow-int8", peer=False, memory=500.0)
    int4 = result("gpt2flow-int4", peer=False, variant="int4", memory=500.0)
    results = [int8, int4]
    of_int8, of_int4 = GOAL["memory of int8, MB"], GOAL["memory of int4, MB"]
    assert evaluate_goal(results, int8, of_int8) == (500.0, True)
    assert evaluate_goal(results, int4, of_int4) == (500.0, False)
    assert evaluate_goal(results, int8, of_int4) is evaluate_goal(results, int4, of_int8) is None


def test_goals_have_titles_of_their_own() -> None:
    """The JSON report has a goal's value under its title."""
    assert len(GOAL) == len(GOALS)


def test_the_share_of_bandwidth_is_that_of_the_bytes_of_a_step() -> None:
    own = result("gpt2flow-int8", peer=False, x1=50.0)
    assert share_of_bandwidth(own, 10.0) is None
    own.about["step_bytes"] = 100_000_000
    assert share_of_bandwidth(own, 10.0) == pytest.approx(0.5)


def test_the_report_names_a_missing_peer_and_the_reason(tmp_path: Path) -> None:
    own = result("gpt2flow-int8", peer=False, x1=184.0, first=50.0)
    absent = Result(engine("absent", peer=True), missing="no wheel\nfor this one")
    failed = result("slow")
    failed.failures["x1"] = "the worker timed out"
    chosen = [all_measurements(16, 1024)["x1"]]
    write_report(tmp_path, [own, absent, failed], chosen, MACHINE, {"threads": 2})
    table = (tmp_path / "peers.md").read_text(encoding="utf-8")
    assert "| engine | runs as | first token (ms) | ×1 (tok/s) |" in table
    assert "| ABSENT | library | missing | missing |" in table
    assert "- ABSENT, library is missing: no wheel for this one" in table
    assert "| SLOW | library | failed | failed |" in table
    assert "- SLOW, library failed at x1: the worker timed out" in table
    engines = json.loads((tmp_path / "peers.json").read_text(encoding="utf-8"))["engines"]
    assert engines["absent"]["missing"] == "no wheel\nfor this one"
    assert engines["gpt2flow-int8"]["figures"]["x1"]["median"] == 184.0
    page = (tmp_path / "peers.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.count("<svg") == 2
    assert ">184</text>" in page
    assert "ABSENT" not in page


@pytest.mark.process
def test_a_peer_without_its_environment_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "absent.txt").write_text(f"{tmp_path}/no-such.whl\n", encoding="utf-8")
    monkeypatch.setattr("peers.environments._REQUIREMENTS", tmp_path)
    with pytest.raises(EnvironmentFailedError, match="ERROR"):
        make_environment("absent", tmp_path / "work")
    absent = Engine("absent", "Absent", "library", "absent", "none", "int8", STREAMS)
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
def test_a_worker_that_takes_too_long_is_terminated(tmp_path: Path) -> None:
    """Its late answer would be taken for that of the next call."""
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    worker = WorkerProcess(command, tmp_path / "log")
    with pytest.raises(WorkerError, match="the worker timed out"):
        worker.call("load", seconds=0.01)
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
