"""Tests of `gpt2flow bench` against a real server."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.command_line import UNREACHABLE

from gpt2flow.cli.commands import bench as command
from gpt2flow.cli.load.settings import Level, Settings
from gpt2flow.cli.main import main

Bench = Callable[..., tuple[int, str, str]]

SMALL = ("--warmup", "1", "--prompt-tokens", "24", "--output-tokens", "8")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gpt2flow", "bench", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def levels(result: tuple[int, str, str]) -> list[dict[str, Any]]:
    """Return the levels of a successful run with --json."""
    code, out, err = result
    assert (code, err) == (0, "")
    found: list[dict[str, Any]] = json.loads(out)["levels"]
    return found


def test_the_report_opens_in_a_browser(bench: Bench, address: str, tmp_path: Path) -> None:
    page = tmp_path / "bench.html"
    code, _, _ = bench(
        *("--address", address, "--concurrency", "1,2", "--requests", "4", *SMALL),
        *("--html", str(page)),
    )
    assert code == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 4
    assert "concurrency 2, p95" in text
    assert "Errors" not in text


def test_a_page_that_cannot_be_written_is_refused_first(bench: Bench, tmp_path: Path) -> None:
    code, _, err = bench("--address", UNREACHABLE, "--html", str(tmp_path))
    assert code == 2
    assert "--html" in err


def test_closed_loop_sweep(bench: Bench, address: str, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    code, out, _ = bench(
        *("--address", address, "--concurrency", "1,3", "--requests", "6", *SMALL),
        *("--prompt-tokens", "uniform:8-24", "--goodput", "ttft:60000", "--out", str(file)),
    )
    assert code == 0
    assert "concurrency 1" in out
    assert "goodput" in out
    report = json.loads(file.read_text())
    assert report["model"]["name"] == "shop"
    assert report["settings"]["prompt_tokens"] == "uniform:8-24"
    assert [level["level"] for level in report["levels"]] == ["concurrency 1", "concurrency 3"]
    for level in report["levels"]:
        assert (level["requests"], level["succeeded"], level["errors"]) == (6, 6, {})
        assert level["complete"]
        assert level["output_tokens"] == 6 * 8
        assert 6 * 8 <= level["prompt_tokens"] <= 6 * 24
        assert level["ttft_ms"]["count"] == level["e2e_ms"]["count"] == 6
        assert level["ttft_ms"]["p50"] <= level["e2e_ms"]["p50"]
        assert level["goodput"] == level["requests_per_second"] > 0


def test_open_loop_latencies_count_from_the_schedule(bench: Bench, address: str) -> None:
    """With one request in flight at a time, most arrivals start late."""
    (level,) = levels(
        bench(
            *("--address", address, "--rate", "10000", "--requests", "20", *SMALL),
            *("--max-in-flight", "1", "--seed", "5"),
            "--json",
        )
    )
    assert level["succeeded"] == 20
    assert level["late_starts"] > 5
    assert level["start_delay_ms"]["max"] <= level["e2e_ms"]["max"]
    assert level["ttft_ms"]["p99"] > level["start_delay_ms"]["p50"]


def test_open_loop_counts_requests_that_never_started(bench: Bench, address: str) -> None:
    code, out, _ = bench(
        *("--address", address, "--rate", "200", "--requests", "40", "--max-in-flight", "1"),
        *("--output-tokens", "400", "--prompt-tokens", "8", "--warmup", "0"),
        *("--timeout", "0.05", "--json"),
    )
    (level,) = json.loads(out)["levels"]
    assert set(level["errors"]) <= {"NOT_STARTED", "DEADLINE_EXCEEDED"}
    # No processor generates 400 tokens in the 5 ms between two arrivals.
    assert level["errors"]["NOT_STARTED"] >= 1
    assert level["requests"] == 40
    assert code == (0 if level["succeeded"] else 1)


def test_shared_prefix_adds_to_the_prompt_length(bench: Bench, address: str) -> None:
    (level,) = levels(
        bench(
            *("--address", address, "--concurrency", "2", "--duration", "0.3", *SMALL),
            *("--shared-prefix", "40", "--temperature", "0.8"),
            "--json",
        )
    )
    assert level["prompt_tokens"] == level["succeeded"] * 64
    assert level["output_tokens"] == level["succeeded"] * 8


def test_beam_search_has_no_inter_token_latency(bench: Bench, address: str) -> None:
    (level,) = levels(
        bench(
            *("--address", address, "--concurrency", "1", "--requests", "2", *SMALL),
            *("--beams", "2", "--output-tokens", "6"),
            "--json",
        )
    )
    assert level["itl_ms"] is None
    assert level["ttft_ms"] == level["e2e_ms"]
    assert level["output_tokens"] > 0


def test_errors_are_counted_by_status(bench: Bench, address: str, tmp_path: Path) -> None:
    prompts, schema = tmp_path / "prompts.jsonl", tmp_path / "schema.json"
    long = {"prompt": "word " * 600}
    short = {"prompt": "hello", "max_new_tokens": 5}
    prompts.write_text(f"{json.dumps(short)}\n{json.dumps(long)}\n")
    schema.write_text('{"type": "integer"}')
    arguments = ("--address", address, "--concurrency", "2", "--requests", "4")
    more = ("--prompts", str(prompts), "--json-schema", str(schema), "--json")
    (level,) = levels(bench(*arguments, *more))
    assert (level["succeeded"], level["errors"]) == (2, {"INVALID_ARGUMENT": 2})
    assert "context of 512" in level["details"]["INVALID_ARGUMENT"]
    assert 1 <= level["output_tokens"] <= 10


def test_a_run_without_success_fails(bench: Bench, address: str) -> None:
    code, out, err = bench(
        "--address", address, *SMALL, "--requests", "2", "--prompt-tokens", "600"
    )
    assert code == 1
    assert "2 × INVALID_ARGUMENT" in out
    assert err.startswith("gpt2flow: error: every request failed; the first with INVALID_ARGUMENT")
    assert len(err.splitlines()) == 1


def test_an_interrupt_prints_the_figures_so_far(
    bench: Bench, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C arrives as the third request ends, with others in flight."""
    # A shell starts background processes with this signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    @contextmanager
    def interrupt(_settings: Settings) -> Iterator[Callable[[Level], None]]:
        ended: list[Level] = []

        def end(level: Level) -> None:
            ended.append(level)
            if len(ended) == 3:
                signal.raise_signal(signal.SIGINT)

        yield end

    monkeypatch.setattr(command, "_progress", interrupt)
    arguments = ("--address", address, "--concurrency", "2,3", *SMALL)
    code, out, err = bench(*arguments, "--json")
    assert code == 130
    assert err.startswith("gpt2flow: error: interrupted")
    assert len(err.splitlines()) == 1
    report = json.loads(out)
    (level,) = report["levels"]
    assert report["interrupted"]
    assert not level["complete"]
    assert 3 <= level["succeeded"] <= 5


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["--address", UNREACHABLE], 1, f"no server answers at {UNREACHABLE}"),
        (["--concurrency", "1,0"], 2, "--concurrency '1,0': must be whole numbers from 1"),
        (["--goodput", "tpot:3"], 2, "--goodput 'tpot:3': must be one or more of ttft:MS"),
        (["--prompts", "nowhere.txt"], 2, "--prompts 'nowhere.txt'"),
        (["--rate", "1", "--concurrency", "1"], 2, "--concurrency and --rate exclude"),
        (["--max-in-flight", "1"], 2, "--max-in-flight is for an open loop"),
        (["--out", "/nowhere/at/all.json"], 2, "--out '/nowhere/at/all.json'"),
    ],
)
def test_a_mistake_is_reported_on_one_line(
    bench: Bench, arguments: list[str], code: int, message: str
) -> None:
    returned, out, err = bench(*arguments)
    assert (returned, out) == (code, "")
    assert err.startswith("gpt2flow: error: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_an_unknown_model_is_bad_input(bench: Bench, address: str) -> None:
    code, _, err = bench("--address", address, "--model", "absent")
    assert code == 2
    assert "absent" in err
