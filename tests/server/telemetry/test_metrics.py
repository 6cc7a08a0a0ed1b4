"""Prometheus metrics, compared with what clients receive."""

import asyncio
import gc
import json
import socket
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.engine_bench import CONTEXT, SLOTS
from tests.support.run_gate import closed_gate, skip_time
from tests.support.running_server import (
    PROMPT,
    RunningServer,
    failure,
    greedy,
    server_config,
    serving,
)
from tests.support.scraping import LOOPBACK, Scrape, fetch, scrape, sums, until_counted
from tests.support.waiting import until

from gpt2flow.inference.v1 import inference_pb2 as pb
from gpt2flow.server import Server, ServerConfig, StartupError, TelemetryConfig

TELEMETRY = TelemetryConfig(metrics_address=LOOPBACK)
TIMES = ("queue", "prefill", "decode")


@pytest.fixture
async def metered(bundle: Path) -> AsyncIterator[RunningServer]:
    """Server with a metrics endpoint."""
    async with serving(server_config(bundle, telemetry=TELEMETRY)) as running:
        yield running


def constrained() -> pb.GenerationOptions:
    schema = {"type": "object", "properties": {"amount": {"enum": [12]}}, "required": ["amount"]}
    return pb.GenerationOptions(
        sampling=pb.SamplingParams(temperature=0),
        constraint=pb.Constraint(json_schema=json.dumps(schema)),
    )


async def test_counts_equal_those_of_the_responses(metered: RunningServer) -> None:
    request = pb.GenerateRequest(prompts=[PROMPT, PROMPT], options=greedy(9))
    unary = await metered.stub.Generate(request)
    forced = await metered.stub.Generate(
        pb.GenerateRequest(prompts=[PROMPT], options=constrained())
    )
    messages = await metered.stream(pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(30)))
    score = await metered.stub.Score(
        pb.ScoreRequest(prompt=PROMPT, continuations=[pb.Prompt(text=" cup"), pb.Prompt(text="!")])
    )
    end = messages[-1].end.result
    results: list[Any] = [*unary.results, *forced.results, end, score]
    expected = sums([result.usage for result in results])
    assert expected["cached"] > 0
    assert expected["forced"] > 0
    assert expected["drafted"] > 0

    found = await until_counted(metered, 4)
    for kind, count in expected.items():
        assert found.get(f"{kind}_tokens_total", model="first") == count, kind
        assert found.get(f"{kind}_tokens_total", model="second") == 0
    for name in TIMES:
        total = sum(getattr(result.timing, f"{name}_ms") for result in results) / 1e3
        assert found.get(f"{name}_seconds_count", model="first") == 5
        assert found.get(f"{name}_seconds_sum", model="first") == pytest.approx(total)
    generated = [*unary.results, *forced.results, end]
    first = sum(each.timing.queue_ms + each.timing.prefill_ms for each in generated) / 1e3
    assert found.get("time_to_first_token_seconds_count", model="first") == 4
    assert found.get("time_to_first_token_seconds_sum") == pytest.approx(first)
    per_token = sum(
        each.timing.decode_ms / (each.usage.completion_tokens - 1) / 1e3 for each in generated
    )
    assert found.get("time_per_output_token_seconds_sum") == pytest.approx(per_token)
    hits = sum(result.usage.cached_tokens > 0 for result in results)
    assert found.get("prefix_cache_prompts_total", result="hit") == hits > 0
    assert found.get("prefix_cache_prompts_total", result="miss") == 5 - hits > 0
    ends = [each.candidates[0].finish_reason for each in generated]
    assert found.get("finished_total") == 4
    assert found.get("finished_total", reason="length") == ends.count(pb.FINISH_REASON_LENGTH)
    assert found.get("rpcs_total", code="OK", rpc="Generate", model="first") == 2
    assert found.get("rpcs_total", code="OK") == found.get("rpc_duration_seconds_count") == 4
    assert found.get("errors_total") == 0


async def test_inter_token_latencies_are_counted_per_chunk(metered: RunningServer) -> None:
    options = greedy(20, output=pb.OutputOptions(token_ids=True))
    messages = await metered.stream(pb.GenerateStreamRequest(prompt=PROMPT, options=options))
    assert len(messages) > 10
    found = await until_counted(metered, 1)
    assert found.get("inter_token_latency_seconds_count", model="first") == len(messages) - 2
    decode = messages[-1].end.result.timing.decode_ms / 1e3
    assert 0 < found.get("inter_token_latency_seconds_sum") < decode * 2 + 1
    assert found.get("inter_token_latency_seconds_bucket", le="+Inf") == len(messages) - 2


async def test_inter_token_latencies_are_counted_per_candidate(metered: RunningServer) -> None:
    options = pb.GenerationOptions(
        sampling=pb.SamplingParams(n=3, seed=1),
        stopping=pb.StoppingCriteria(max_new_tokens=6, ignore_eos=True),
        output=pb.OutputOptions(token_ids=True),
    )
    messages = await metered.stream(pb.GenerateStreamRequest(prompt=PROMPT, options=options))
    found = await until_counted(metered, 1)
    assert found.get("inter_token_latency_seconds_count") == len(messages) - 1 - 3


async def test_runs_of_the_model_are_counted_by_kind(metered: RunningServer) -> None:
    response = await metered.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=greedy(6)))
    found = await until_counted(metered, 1)
    usage = response.results[0].usage
    assert (usage.prompt_tokens, usage.drafted_tokens) == (9, 0)
    # A chunk of eight tokens, and one of the ninth.
    assert found.get("run_tokens_sum", kind="prefill", model="first") == 9
    assert found.get("run_tokens_count", kind="prefill") == 2
    assert found.get("run_tokens_sum", kind="decode") == 5
    assert found.get("run_tokens_count") == found.get("run_duration_seconds_count") == 7
    assert 0 < found.get("run_duration_seconds_sum", kind="prefill") < 60


def vllm_gauges(found: Scrape, model: str) -> tuple[float, ...]:
    """Return the three gauges that have vLLM's names, of one model."""
    names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    series = [found.samples[f"vllm:{name}"] for name in names]
    return tuple(
        value for each in series for labels, value in each if labels == {"model_name": model}
    )


async def test_gauges_show_the_current_state(metered: RunningServer) -> None:
    request = pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(80))
    with closed_gate(metered.engine) as gate:
        calls = [metered.stub.GenerateStream(request) for _ in range(SLOTS + 2)]
        await gate.until_unfinished(SLOTS + 2)
        # Enough for all prompts, and too few for any answer.
        await gate.pass_runs(40)
        busy = await scrape(metered)
        assert busy.get("requests_waiting", model="first") == 2
        assert busy.get("requests_running", model="first") == SLOTS
        assert busy.get("requests_running", model="second") == 0
        assert busy.get("kv_cache_positions_running", model="first") >= SLOTS * 10
        assert busy.get("slots_used", model="first") == SLOTS
        assert busy.get("slots_free", model="first") == 0
        assert busy.get("kv_cache_usage_ratio", model="first") == 1
        assert busy.get("kv_cache_usage_ratio", model="second") == 0
        assert vllm_gauges(busy, "first") == (SLOTS, 2, 1)
        assert vllm_gauges(busy, "second") == (0, 0, 0)
        for call in calls:
            call.cancel()
        await gate.until_unfinished(0)
    await metered.wait_all_free()
    free = await until_counted(metered, SLOTS + 2, code="CANCELLED")
    assert free.get("requests_running") == free.get("requests_waiting") == 0
    assert free.get("slots_free", model="first") == SLOTS
    assert vllm_gauges(free, "first") == (0, 0, 0)
    assert free.get("kv_cache_positions_running") == 0
    assert free.get("kv_cache_positions_cached", model="first") > 0
    assert free.get("kv_cache_positions", model="first") == SLOTS * CONTEXT
    assert free.get("kv_cache_bytes", model="first") == metered.model.kv_cache_bytes
    assert free.get("errors_total") == 0
    assert free.get("completion_tokens_total") == 0


async def test_preemptions_are_counted(metered: RunningServer) -> None:
    low = pb.GenerateStreamRequest(prompt=PROMPT, options=greedy(60, priority=-1))
    with closed_gate(metered.engine) as gate:
        calls = [metered.stub.GenerateStream(low) for _ in range(SLOTS)]
        await gate.begin(*calls)
        high = metered.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=greedy(2)))
        await gate.until_unfinished(SLOTS + 1)
    await high
    assert (await scrape(metered)).get("preemptions_total", model="first") == 1
    for call in calls:
        call.cancel()


async def test_errors_are_counted_by_code(metered: RunningServer) -> None:
    generate = metered.stub.Generate
    bad = greedy(5)
    bad.sampling.top_p = 7
    await failure(generate(pb.GenerateRequest(prompts=[PROMPT], options=bad)))
    await failure(generate(pb.GenerateRequest(model="no such", prompts=[PROMPT])))
    limited = greedy(70)
    limited.stopping.time_limit_ms = 3_600_000
    with closed_gate(metered.engine) as gate:
        late = generate(pb.GenerateRequest(prompts=[PROMPT], options=limited))
        await gate.until_unfinished(1)
        skip_time(metered.engine, 3600)
    assert (await failure(late))[0] == grpc.StatusCode.DEADLINE_EXCEEDED
    many = generate(pb.GenerateRequest(prompts=[PROMPT] * (SLOTS + 3), options=greedy(2)))
    assert (await failure(many))[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    found = await until_counted(metered, 4)
    assert found.labels("errors_total", "code") == {
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "DEADLINE_EXCEEDED",
        "RESOURCE_EXHAUSTED",
    }
    assert found.get("errors_total", reason="invalid_request", model="first") == 1
    assert found.get("errors_total", reason="overloaded", rpc="Generate") == 1
    # A model name invented by a client must not become a series.
    assert found.labels("rpcs_total", "model") == {"first", ""}
    assert found.get("rpcs_total", code="NOT_FOUND", model="") == 1
    assert found.get("rpc_duration_seconds_count") == 0


async def test_metrics_follow_the_loaded_models(metered: RunningServer) -> None:
    before = await scrape(metered)
    assert before.get("models_loaded") == 2
    assert before.labels("model_info", "model") == {"first", "second"}
    assert before.get("model_info", fingerprint=metered.model.bundle.fingerprint) == 2
    [model, gone] = metered.server.registry.models
    weak = weakref.ref(gone.engine)
    configs = server_config(metered.model.bundle.directory).model_configs
    await metered.server.registry.apply({"first": configs["first"]})
    after = await scrape(metered)
    assert after.get("models_loaded") == 1
    assert after.labels("slots_free", "model") == {"first"}
    del model, gone

    def is_freed() -> bool:
        gc.collect()
        return weak() is None

    await until(is_freed)


async def test_two_servers_count_separately(metered: RunningServer, bundle: Path) -> None:
    async with serving(server_config(bundle, telemetry=TELEMETRY)) as other:
        assert other.server.metrics_port != metered.server.metrics_port
        await other.stub.Generate(pb.GenerateRequest(prompts=[PROMPT], options=greedy(2)))
        assert (await until_counted(other, 1)).get("prompt_tokens_total") > 0
        assert (await scrape(metered)).get("prompt_tokens_total") == 0


async def test_process_metrics_are_exported(metered: RunningServer) -> None:
    found = await scrape(metered)
    [(_, memory)] = found.samples["process_resident_memory_bytes"]
    assert memory > 10e6


async def test_without_an_address_there_is_no_endpoint(running: RunningServer) -> None:
    assert running.server.metrics_port is None


async def test_a_silent_scraper_blocks_no_other(metered: RunningServer) -> None:
    port = metered.server.metrics_port
    assert port is not None
    with socket.create_connection(("127.0.0.1", port)):
        assert "gpt2flow_models_loaded 2.0" in await asyncio.to_thread(fetch, port)


async def test_an_address_in_use_fails_the_start(bundle: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        telemetry = TelemetryConfig(metrics_address=("127.0.0.1", port))
        server = Server(ServerConfig(models={"m": bundle}, port=0, telemetry=telemetry))
        with pytest.raises(StartupError, match=f"127.0.0.1:{port} for metrics: Address already"):
            await server.start()
    await server.stop()
