"""Tests of the load generator without a server: lengths, arrivals, figures."""

import math
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2flow.cli.load import LoadError
from gpt2flow.cli.load.figures import level_figures
from gpt2flow.cli.load.generator_load import GeneratorLoad
from gpt2flow.cli.load.loops import poisson
from gpt2flow.cli.load.measurements import (
    Chunk,
    LatencyLimits,
    Record,
    add_unstreamed_tokens,
    parse_limits,
    percentile,
    percentiles,
)
from gpt2flow.cli.load.prompts import FilePrompt, parse_lengths, read_prompts
from gpt2flow.cli.load.settings import (
    Budget,
    ClosedLevel,
    OpenLevel,
    parse_concurrency,
    parse_rates,
)

IDLE = GeneratorLoad(0.1, 0.1, 0.1)


def drawn(text: str, count: int = 20_000) -> list[int]:
    lengths, rng = parse_lengths(text), Random(1)
    return [lengths.draw(rng) for _ in range(count)]


@pytest.mark.parametrize("text", ["7", "fixed:7", "uniform:7-7", "normal:7,0", "lognormal:7,0"])
def test_lengths_without_variance_are_constant(text: str) -> None:
    assert set(drawn(text, 50)) == {7}


def test_uniform_lengths_reach_both_ends_evenly() -> None:
    values, counts = np.unique(drawn("uniform:3-6"), return_counts=True)
    assert list(values) == [3, 4, 5, 6]
    assert all(abs(count / 5_000 - 1) < 0.1 for count in counts)


def test_normal_and_lognormal_lengths_have_the_given_moments() -> None:
    normal = np.array(drawn("normal:500,50"))
    assert abs(normal.mean() - 500) < 2
    assert abs(normal.std() - 50) < 2
    logs = np.log(drawn("lognormal:500,0.5"))
    assert abs(np.exp(np.median(logs)) - 500) < 10
    assert abs(logs.std() - 0.5) < 0.02


def test_lengths_are_clipped_to_one_and_the_maximum() -> None:
    values = drawn("normal:10,20,15")
    assert (min(values), max(values)) == (1, 15)
    assert max(drawn("lognormal:1000,10")) == 1_000_000


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "-1", "1.5", "x", "５", "fixed:9999999", "uniform:5-3", "uniform:0-3"),
        *("normal:5", "normal:0,1", "normal:5,-1", "normal:nan,1", "lognormal:5,11"),
        *("lognormal:5,1,0", "normal:5,1,2,3"),
    ],
)
def test_invalid_lengths_are_rejected(text: str) -> None:
    with pytest.raises(LoadError):
        parse_lengths(text)


def test_arrivals_are_poisson() -> None:
    """Exponential gaps, and counts per second with variance equal to their mean."""
    rate = 50.0
    times = np.array(list(Budget(seconds=400).limit(poisson(rate, Random(3)))))
    gaps = np.diff(times)
    assert np.all(gaps > 0)
    assert times[-1] < 400
    assert abs(len(times) / (400 * rate) - 1) < 0.03
    assert abs(gaps.std() / gaps.mean() - 1) < 0.03
    assert abs(np.mean(gaps > 1 / rate) - math.exp(-1)) < 0.02
    counts = np.bincount(times.astype(int), minlength=400)
    assert 0.8 < counts.var() / counts.mean() < 1.25


def test_the_seed_determines_the_arrivals() -> None:
    first, again, other = (
        list(Budget(requests=5).limit(poisson(2, Random(seed)))) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert len(first) == 5


@pytest.mark.parametrize("text", ["", "0", "1,", "1;2", "-1", "1.5", "4097", "x"])
def test_invalid_concurrency_is_rejected(text: str) -> None:
    with pytest.raises(LoadError):
        parse_concurrency(text)


@pytest.mark.parametrize("text", ["", "0", "1,", "-1", "nan", "inf", "10001", "x"])
def test_invalid_rates_are_rejected(text: str) -> None:
    with pytest.raises(LoadError):
        parse_rates(text, 8)


def test_levels_are_parsed() -> None:
    assert parse_concurrency("1,16") == [ClosedLevel(1), ClosedLevel(16)]
    assert parse_rates("0.5,20", 8) == [OpenLevel(0.5, 8), OpenLevel(20, 8)]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.floats(0, 100))
def test_percentile_matches_numpy(values: list[float], percent: float) -> None:
    expected = np.percentile(values, percent)
    assert percentile(sorted(values), percent) == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_percentiles_of_a_sample() -> None:
    values = [5.0, 1.0, 4.0, 2.0]
    found = percentiles(values)
    assert found is not None
    assert (found.count, found.mean, found.p50, found.max) == (4, 3.0, 3.0, 5.0)
    assert found.p95 == pytest.approx(np.percentile(values, 95))
    assert percentiles([]) is None


def record(*chunks: tuple[float, int], due: float = 0.0, late: float = 0.0) -> Record:
    ended = chunks[-1][0]
    return Record(due, due + late, ended, chunks=[Chunk(*chunk) for chunk in chunks])


def test_tokens_of_one_chunk_share_its_gap() -> None:
    """Three chunks, with gaps of 0.3 s and 0.4 s."""
    one = record((1.0, 1), (1.3, 3), (1.7, 2))
    assert one.inter_token == pytest.approx([0.1, 0.1, 0.1, 0.2, 0.2])
    assert one.chunk_gaps == pytest.approx([0.3, 0.4])
    assert one.mean_inter_token == pytest.approx(np.mean(one.inter_token))
    assert one.output_tokens == 6
    assert one.ttft == 1.0


def test_latencies_count_from_the_scheduled_start() -> None:
    one = record((3.0, 1), (3.5, 1), due=1.0, late=1.5)
    assert (one.ttft, one.e2e, one.start_delay) == (2.0, 2.5, 1.5)


def test_unstreamed_tokens_count_as_received_at_the_end() -> None:
    streamed = [Chunk(1.0, 2), Chunk(1.5, 0)]
    assert add_unstreamed_tokens(streamed, 2, 9.0) == [Chunk(1.0, 2)]
    assert add_unstreamed_tokens(streamed, 5, 9.0) == [Chunk(1.0, 2), Chunk(9.0, 3)]
    beams = Record(0, 0, 9.0, chunks=add_unstreamed_tokens([], 5, 9.0))
    assert (beams.ttft, beams.inter_token, beams.mean_inter_token) == (9.0, [], None)


def test_limits_are_parsed() -> None:
    assert parse_limits("ttft:200,e2e:5e3") == LatencyLimits(ttft=200, e2e=5000)
    for invalid in ("", "ttft", "ttft:", "ttft:x", "tpot:3", "ttft:1,ttft:2", "itl:0", "itl:nan"):
        with pytest.raises(LoadError):
            parse_limits(invalid)


def test_goodput_counts_requests_within_all_limits() -> None:
    limits = parse_limits("ttft:200,itl:30,e2e:1000")
    fast = record((0.1, 1), (0.12, 1))
    assert limits.met_by(fast)
    assert limits.met_by(record((0.2, 1)))  # Limits are inclusive; a single token has no ITL.
    assert not limits.met_by(record((0.3, 1), (0.31, 1)))
    assert not limits.met_by(record((0.1, 1), (0.2, 1)))
    assert not limits.met_by(record((0.1, 1), (1.1, 100)))
    assert not limits.met_by(Record(0, 0, 0.1, "UNAVAILABLE"))


def test_figures_of_a_level() -> None:
    good = [record((10.1, 1), (10.3, 4), due=10.0), record((11.0, 5), due=10.5, late=0.2)]
    failed = [Record(10, 10, 12.0, "INTERNAL", "first"), Record(10, 10, 11.0, "INTERNAL", "second")]
    figures = level_figures("x", [*good, *failed], 10.0, IDLE, limits=LatencyLimits(ttft=200))
    assert (figures.requests, figures.succeeded, figures.errors) == (4, 2, {"INTERNAL": 2})
    assert figures.details == {"INTERNAL": "first"}
    assert figures.seconds == pytest.approx(2.0)
    assert figures.output_tokens_per_second == pytest.approx(5.0)
    assert figures.requests_per_second == pytest.approx(1.0)
    assert figures.goodput == pytest.approx(0.5)
    assert figures.late_starts == 1
    assert figures.ttft_ms is not None
    assert figures.ttft_ms.mean == pytest.approx(300)
    assert figures.itl_ms is not None
    assert figures.itl_ms.count == 4
    assert figures.itl_ms.mean == pytest.approx(50)


def test_figures_without_success() -> None:
    figures = level_figures("x", [Record(0, 0, 1.0, "UNAVAILABLE")], 0.0, IDLE)
    assert (figures.succeeded, figures.ttft_ms, figures.goodput) == (0, None, None)


def test_prompt_files_are_text_or_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "prompts"
    path.write_text("one\n\n{not json}\r\n  帮我\n", encoding="utf-8")
    assert [p.text for p in read_prompts(path)] == ["one", "{not json}", "  帮我"]
    path.write_text('{"prompt": "one"}\n{"prompt": "two", "max_new_tokens": 3}\n')
    assert read_prompts(path) == [FilePrompt("one"), FilePrompt("two", 3)]


@pytest.mark.parametrize(
    "text, message",
    [
        (" \n", "no prompt"),
        ('{"prompt": ""}', "line 1"),
        ('{"prompt": "\\ud800"}', "line 1"),
        ('{"prompt": "a"}\n\nplain', "line 3"),
        ('{"prompt": "a", "max_new_tokens": 0}', "max_new_tokens"),
        ('{"prompt": "a", "max_new_tokens": true}', "max_new_tokens"),
    ],
)
def test_invalid_prompt_files_are_rejected(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "prompts"
    path.write_text(text)
    with pytest.raises(LoadError, match=message):
        read_prompts(path)


def test_a_saturated_generator_is_detected() -> None:
    assert not IDLE.saturated
    for load in (
        GeneratorLoad(0.95, 1, 1),
        GeneratorLoad(0.1, 21, 50),
        GeneratorLoad(0.1, 1, 13_505),
    ):
        assert load.saturated
