"""Benchmark of quantization recipes: quality, size and speed, as a Markdown table.

    python benchmarks/quantization.py CHECKPOINT… [--only TEXT] [--json FILE]

The profiles at the end are those that an export writes. Speed is that of a decode step of one row
after 128 tokens. The variants are timed round-robin, so that machine noise affects all alike.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from gpt2flow.export.checkpoint.checkpoint import Checkpoint, read_checkpoint
from gpt2flow.export.graph.serving_graph import write_serving_graph
from gpt2flow.export.quantization.calibration import Texts, find_texts
from gpt2flow.export.quantization.plan import make_plan
from gpt2flow.export.recipe import (
    RECIPES,
    KvCache,
    Method,
    Profile,
    ProfileRecipe,
    Storage,
)
from gpt2flow.export.verification.quality import measure
from gpt2flow.export.verification.reference import ReferenceModel
from gpt2flow.server.bundle.model_runner import ModelRunner

CONTEXT_TOKENS = 128
ROUNDS = 30
STEPS = 8

FP32, INT8, INT4 = (RECIPES[Profile(name)] for name in ("fp32", "int8", "int4"))


def variants() -> Iterator[tuple[str, ProfileRecipe]]:
    """Yield the name and recipe of each variant."""
    yield "fp32", FP32
    yield "fp32, int8 cache", replace(FP32, kv_cache=KvCache.INT8)
    yield "int8 blocks of 128", replace(INT8, kv_cache=KvCache.FP32)
    int4 = replace(INT4, kv_cache=KvCache.FP32, mixed_precision_budget=0.0)
    for method in Method:
        for block_size in (128, 64, 32):
            body = Storage(4, block_size)
            recipe = replace(int4, body=body, head=INT8.head, method=method)
            yield f"int4 {method} blocks of {block_size}", recipe
    for method in (Method.RTN, Method.GPTQ):
        for share in (0.05, 0.1, 0.2):
            name = f"int4 {method} blocks of 128, {share:.0%} kept"
            recipe = replace(int4, head=INT8.head, method=method, mixed_precision_budget=share)
            yield name, recipe
    for method in (Method.RTN, Method.GPTQ):
        name = f"int4 {method} blocks of 128, 10% kept, head too"
        yield name, replace(int4, method=method, mixed_precision_budget=0.1)
    yield "profile int8", INT8
    yield "profile int4", INT4


@dataclass
class Row:
    """Figures of one variant.

    Attributes:
        name: Name of the variant.
        perplexity: Perplexity on the evaluation text.
        ratio: Perplexity over that of the fp32 reference.
        agreement: Share of positions with the reference's argmax.
        divergence: Mean KL divergence from the reference.
        megabytes: Size of the graph's files, in 10^6 bytes.
        quantize_seconds: Time to plan and write the graph.
        step_milliseconds: Median time of a single-row decode step.
    """

    name: str
    perplexity: float
    ratio: float
    agreement: float
    divergence: float
    megabytes: float
    quantize_seconds: float
    step_milliseconds: float = 0.0


def measure_variant(
    name: str, recipe: ProfileRecipe, folder: Path, source: Checkpoint, texts: Texts
) -> Row:
    """Write the graph of a variant and measure its quality."""
    assert texts.evaluation
    assert texts.calibration
    oracle = ReferenceModel(source)
    folder.mkdir()
    started = time.monotonic()
    plan = make_plan(source, recipe, oracle, texts.calibration.windows, lambda *_: None)
    graph = folder / "model.onnx"
    write_serving_graph(
        graph,
        source.architecture,
        source.weights,
        recipe,
        kept=plan.kept,
        quantizer=plan.quantizer,
        cache_scales=plan.cache_scales,
    )
    seconds = time.monotonic() - started
    quality = measure(texts.evaluation, oracle, graph, on_tokens=lambda *_: None).whole
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    return Row(
        name,
        quality.perplexity,
        quality.perplexity_ratio,
        quality.argmax_agreement,
        quality.mean_kl,
        size,
        seconds,
    )


def measure_speed(rows: list[Row], folders: list[Path], context_length: int) -> None:
    """Set the decode step time of every row, timing the variants round-robin."""
    past = min(CONTEXT_TOKENS, context_length - ROUNDS * STEPS - 1)
    runners = [
        ModelRunner(folder / "model.onnx", slots=1, capacity=context_length, threads=2)
        for folder in folders
    ]
    times: list[list[float]] = [[] for _ in rows]
    for runner in runners:
        runner.run([0] * past, [0] * past, range(past), [])
    for repeat in range(ROUNDS):
        for runner, taken in zip(runners, times, strict=True):
            runner.run([1], [0], [past], [0])
            started = time.perf_counter()
            for step in range(STEPS):
                runner.run([1], [0], [past + repeat * STEPS + step], [0])
            taken.append((time.perf_counter() - started) / STEPS * 1e3)
    for row, taken in zip(rows, times, strict=True):
        row.step_milliseconds = median(taken)


def markdown(rows: list[Row]) -> str:
    """Return the table, with speed relative to the first variant."""
    lines = [
        "| variant | perplexity | ratio | argmax agreement | mean KL | MB | decode speed | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        speed = rows[0].step_milliseconds / row.step_milliseconds
        lines.append(
            f"| {row.name} | {row.perplexity:.3f} | {row.ratio:.4f} | {row.agreement:.2%} "
            f"| {row.divergence:.5f} | {row.megabytes:.1f} | {speed:.2f} × "
            f"| {row.quantize_seconds:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure every checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkpoints", type=Path, nargs="+", help="Checkpoints to measure.")
    parser.add_argument("--only", default="", help="Text in the names of the variants to measure.")
    parser.add_argument("--json", type=Path, help="File for the figures as JSON.")
    options = parser.parse_args()
    figures = {}
    for checkpoint in options.checkpoints:
        source = read_checkpoint(checkpoint)
        texts = find_texts(source, None, None, measured=True, calibrated=True)
        rows, folders = [], []
        with tempfile.TemporaryDirectory() as temporary:
            for number, (name, recipe) in enumerate(variants()):
                if options.only in name:
                    folders.append(Path(temporary) / str(number))
                    rows.append(measure_variant(name, recipe, folders[-1], source, texts))
                    print(rows[-1], flush=True)
            measure_speed(rows, folders, source.architecture.context_length)
        print(f"\n{checkpoint.name}: {source.parameters:,} parameters\n\n{markdown(rows)}\n")
        figures[checkpoint.name] = [vars(row) for row in rows]
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
