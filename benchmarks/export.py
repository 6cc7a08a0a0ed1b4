"""Benchmark of GPT-2 124M exports and their graphs, as Markdown tables.

    python benchmarks/export.py --text DIR --vocabulary DIR [--work DIR]

The weights are random, since speed does not depend on them. `--text` and `--vocabulary` are those
of `wikitext_model.py`. Export time and peak memory are those of one `gpt2flow export` process.
Load time runs from the first import of a fresh process to its first token. The steps of all graphs
are timed round-robin, so that machine noise affects all of them alike. In the environment of
`make reference`, Optimum's int8 model is one of them, and the base of all ratios.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from wikitext_model import load_gpt2_tokenizer

_RTN = ["--profile", "int4", "--method", "rtn", "--kept-share", "0"]
EXPORTS = {
    "fp32": ["--profile", "fp32"],
    "int8": ["--profile", "int8"],
    "int4": ["--profile", "int4"],
    "int4, no GPTQ": _RTN,
    "int8, fp32 cache": ["--profile", "int8", "--kv-cache", "fp32"],
    "int4, fp32 cache": [*_RTN, "--kv-cache", "fp32"],
}
PROMPT_TOKENS = 128
BATCHES = (1, 4, 8, 16)
CONTEXTS = (64, 250, 500, 1000)
ROUNDS = 7
THREADS = 2

LOAD_SCRIPT = """
import sys, time
started = time.perf_counter()
from pathlib import Path
from gpt2flow.server.bundle.manifest import load_bundle
from gpt2flow.server.bundle.model_runner import ModelRunner
bundle = load_bundle(Path(sys.argv[1]))
shape = bundle.manifest.shape
runner = ModelRunner(
    bundle.directory / "model.onnx", slots=16, capacity=shape.context_length, threads=2
)
runner.run([1] * 128, [0] * 128, range(128), [127])
print(time.perf_counter() - started)
"""


def make_checkpoint(directory: Path, text: Path, vocabulary: Path) -> None:
    """Write a randomly initialized GPT-2 124M with evaluation and calibration texts."""
    from transformers import GPT2Config, GPT2LMHeadModel  # noqa: PLC0415 - the import takes seconds

    GPT2LMHeadModel(GPT2Config()).save_pretrained(directory)
    load_gpt2_tokenizer(vocabulary).save(str(directory / "tokenizer.json"))
    shutil.copyfile(text / "test.txt", directory / "eval.txt")
    shutil.copyfile(text / "valid.txt", directory / "calibration.txt")


def run_export(checkpoint: Path, bundle: Path, options: list[str]) -> tuple[float, float]:
    """Run `gpt2flow export`.

    Returns:
        Duration in seconds, and peak memory in gigabytes.
    """
    command = [str(Path(sys.executable).with_name("gpt2flow")), "export"]
    command += [str(checkpoint), str(bundle), *options]
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"gpt2flow export {' '.join(options)} failed with {child.returncode}")
    return time.monotonic() - started, usage.ru_maxrss / 1e6


def measure_first_token(bundle: Path) -> float:
    """Return a fresh process's seconds to its first token, imports included."""
    completed = subprocess.run(
        [sys.executable, "-c", LOAD_SCRIPT, str(bundle)], capture_output=True, text=True, check=True
    )
    return float(completed.stdout)


class ServedGraph:
    """Graph of a bundle, run as the server runs it."""

    def __init__(self, bundle: Path) -> None:
        from gpt2flow.server.bundle.model_runner import ModelRunner  # noqa: PLC0415 - only where needed

        self._runner = ModelRunner(
            bundle / "model.onnx", slots=max(BATCHES), capacity=1024, threads=THREADS
        )

    def prefill(self) -> None:
        """Prefill a prompt of `PROMPT_TOKENS` tokens."""
        positions = range(PROMPT_TOKENS)
        self._runner.run([1] * PROMPT_TOKENS, [0] * PROMPT_TOKENS, positions, [PROMPT_TOKENS - 1])

    def decode(self, batch: int, context: int, steps: int) -> float:
        """Return the mean seconds of a decode step.

        Args:
            batch: Number of rows.
            context: Cached tokens per row before the first step.
            steps: Number of steps to average over.
        """
        rows = range(batch)
        self._runner.run([1] * batch, rows, [context] * batch, rows)
        started = time.perf_counter()
        for step in range(steps):
            self._runner.run([1] * batch, rows, [context + step] * batch, rows)
        return (time.perf_counter() - started) / steps


class OptimumInt8:
    """Optimum's export of a checkpoint, with its dynamic int8 quantization."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        import onnxruntime  # noqa: PLC0415 - as above
        import torch  # noqa: PLC0415
        from optimum.onnxruntime import ORTModelForCausalLM, ORTQuantizer  # noqa: PLC0415
        from optimum.onnxruntime.configuration import AutoQuantizationConfig  # noqa: PLC0415

        self._torch = torch
        torch.set_num_threads(THREADS)
        exported = ORTModelForCausalLM.from_pretrained(checkpoint, export=True, use_cache=True)
        exported.save_pretrained(folder / "fp32")
        quantizer = ORTQuantizer.from_pretrained(folder / "fp32", file_name="model.onnx")
        config = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=False)
        quantizer.quantize(save_dir=folder / "int8", quantization_config=config)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        self._model = ORTModelForCausalLM.from_pretrained(
            folder / "int8", file_name="model_quantized.onnx", session_options=options
        )

    def prefill(self) -> None:
        """Prefill a prompt of `PROMPT_TOKENS` tokens."""
        self._forward(1, PROMPT_TOKENS, 0, None)

    def decode(self, batch: int, context: int, steps: int) -> float:
        """Return the mean seconds of a decode step.

        Args:
            batch: Number of rows.
            context: Cached tokens per row before the first step.
            steps: Number of steps to average over.
        """
        past = self._forward(batch, context, 0, None)
        started = time.perf_counter()
        for step in range(steps):
            past = self._forward(batch, 1, context + step, past)
        return (time.perf_counter() - started) / steps

    def _forward(self, batch: int, tokens: int, context: int, past: object) -> object:
        """Run `tokens` tokens per row after `context` cached ones.

        Returns:
            Keys and values of both.
        """
        ones = self._torch.ones(batch, context + tokens, dtype=self._torch.int64)
        positions = self._torch.arange(context, context + tokens).expand(batch, -1)
        with self._torch.no_grad():
            return self._model(
                input_ids=ones[:, :tokens],
                attention_mask=ones,
                position_ids=positions,
                past_key_values=past,
                use_cache=True,
            ).past_key_values


def measure_steps(models: dict[str, ServedGraph | OptimumInt8]) -> dict[str, dict[str, float]]:
    """Return milliseconds of prefill and of decode steps, by model and column.

    Each figure is a median; the models are timed round-robin.
    """
    times: dict[str, dict[str, list[float]]] = {name: {} for name in models}
    for _ in range(ROUNDS):
        for name, model in models.items():
            model.prefill()
            started = time.perf_counter()
            model.prefill()
            times[name].setdefault("prefill", []).append(time.perf_counter() - started)
            for batch in BATCHES:
                seconds = model.decode(batch, PROMPT_TOKENS, 8)
                times[name].setdefault(f"x{batch}", []).append(seconds)
    return {
        name: {column: median(taken) * 1e3 for column, taken in columns.items()}
        for name, columns in times.items()
    }


def measure_contexts(models: dict[str, ServedGraph]) -> dict[str, list[float]]:
    """Return milliseconds of a single-row decode step, by model and context."""
    times: dict[str, list[list[float]]] = {name: [[] for _ in CONTEXTS] for name in models}
    for _ in range(ROUNDS):
        for name, model in models.items():
            for index, context in enumerate(CONTEXTS):
                times[name][index].append(model.decode(1, context, 8))
    return {name: [median(t) * 1e3 for t in columns] for name, columns in times.items()}


def main() -> None:
    """Export, measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--text", type=Path, required=True, help="Directory of WikiText-2 raw, split into files."
    )
    parser.add_argument(
        "--vocabulary", type=Path, required=True, help="Directory of GPT-2's vocabulary files."
    )
    parser.add_argument(
        "--work", type=Path, help="Directory to keep the bundles in; default: a temporary one."
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        checkpoint = work / "checkpoint"
        if not checkpoint.exists():
            make_checkpoint(checkpoint, options.text, options.vocabulary)
        print("| export | s | peak GB | MB | first token, s |\n|---|---|---|---|---|")
        for name, arguments in EXPORTS.items():
            bundle = work / name
            seconds, peak = (
                (0.0, 0.0) if bundle.exists() else run_export(checkpoint, bundle, arguments)
            )
            size = sum(path.stat().st_size for path in bundle.iterdir()) / 1e6
            load = median(measure_first_token(bundle) for _ in range(3))
            print(f"| {name} | {seconds:.0f} | {peak:.1f} | {size:.0f} | {load:.2f} |", flush=True)
        names = list(EXPORTS)
        bundles = {name: ServedGraph(work / name) for name in names if name != "int4, no GPTQ"}
        models: dict[str, ServedGraph | OptimumInt8] = {}
        if find_spec("optimum"):
            models["Optimum int8"] = OptimumInt8(checkpoint, Path(temporary))
        steps = measure_steps({**models, **bundles})
        base = next(iter(steps.values()))
        print("\n| graph | prefill 128, ms |" + "".join(f" ×{batch}, tok/s |" for batch in BATCHES))
        print("|---|---|" + "---|" * len(BATCHES))
        for name, columns in steps.items():
            cells = [f"{columns['prefill']:.0f} ({base['prefill'] / columns['prefill']:.2f})"]
            for batch in BATCHES:
                ours, theirs = columns[f"x{batch}"], base[f"x{batch}"]
                cells.append(f"{batch / ours * 1e3:.0f} ({theirs / ours:.2f})")
            print(f"| {name} | " + " | ".join(cells) + " |")
        print("\n| graph |" + "".join(f" {context} |" for context in CONTEXTS))
        print("|---|" + "---|" * len(CONTEXTS))
        for name, by_context in measure_contexts(bundles).items():
            print(f"| {name} |" + "".join(f" {taken:.2f} |" for taken in by_context))


if __name__ == "__main__":
    main()
