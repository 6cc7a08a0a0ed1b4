"""Benchmark of token sampling against transformers, as a Markdown table.

    python benchmarks/sampling.py

Each row of logits covers GPT-2's vocabulary. In one row, probabilities fall with the rank as those
of words do (Zipf-Mandelbrot). In the other they are nearly equal, the worst case of a nucleus.
Times are medians in microseconds, measured round-robin. transformers' processors run in PyTorch
with one thread.
"""

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from transformers.generation import logits_process as hf

from gpt2flow.server.params import SamplingParams
from gpt2flow.server.sampling.filters import Floats
from gpt2flow.server.sampling.logits import LogitsRows
from gpt2flow.server.sampling.sampler import Sampler, make_rng

VOCABULARY = 50_257
ROUNDS = 200

Timed = Callable[[], object]

DECODINGS: dict[str, tuple[SamplingParams, list[object]]] = {
    "greedy": (SamplingParams(temperature=0), []),
    "temperature 0.8": (SamplingParams(temperature=0.8), [hf.TemperatureLogitsWarper(0.8)]),
    "top-k 50": (SamplingParams(top_k=50), [hf.TopKLogitsWarper(50)]),
    "top-p 0.9": (SamplingParams(top_p=0.9), [hf.TopPLogitsWarper(0.9)]),
    "min-p 0.05": (SamplingParams(min_p=0.05), [hf.MinPLogitsWarper(0.05)]),
    "typical-p 0.9": (SamplingParams(typical_p=0.9), [hf.TypicalLogitsWarper(0.9)]),
    "0.8, top-k 50, top-p 0.9": (
        SamplingParams(temperature=0.8, top_k=50, top_p=0.9),
        [hf.TemperatureLogitsWarper(0.8), hf.TopKLogitsWarper(50), hf.TopPLogitsWarper(0.9)],
    ),
}


def make_logits(shape: str) -> Floats:
    """Return logits [vocabulary] of a "Zipf" or "flat" shape, in random order."""
    rng = np.random.default_rng(0)
    if shape == "flat":
        return rng.normal(0, 0.5, VOCABULARY).astype(np.float32)
    logits: Floats = np.float32(-1.5) * np.log(rng.permutation(VOCABULARY) + 2.7).astype(np.float32)
    return logits


def server_choice(params: SamplingParams, logits: Floats) -> Timed:
    """Return a function that chooses a token as the server does."""
    sampler, rng = Sampler(params, []), make_rng(0, 0)
    return lambda: sampler.choose(logits, [0], 1, rng)


def transformers_choice(params: SamplingParams, processors: list[object], logits: Floats) -> Timed:
    """Return a function that chooses a token as transformers' `generate` does."""
    scores, ids = torch.from_numpy(logits)[None], torch.zeros(1, 1, dtype=torch.int64)
    chain = hf.LogitsProcessorList(processors)

    def choose() -> object:
        processed = chain(ids, scores.clone())
        if params.greedy:
            return processed.argmax(-1)
        return torch.multinomial(processed.softmax(-1), 1)

    return choose


def log_probability(logits: Floats) -> Timed:
    """Return a function that computes a token's log-probability.

    The server spends this time on top of each choice that reports log-probabilities.
    """
    return lambda: LogitsRows(logits[None]).logprob(0, 5)


def main() -> None:
    """Measure and print the table."""
    torch.set_num_threads(1)
    print("| logits | decoding | ours (µs) | transformers (µs) | ratio |\n|---|---|---|---|---|")
    for shape in ("Zipf", "flat"):
        logits = make_logits(shape)
        for name, (params, processors) in DECODINGS.items():
            ours, theirs = measure_interleaved(
                [
                    server_choice(params, logits),
                    transformers_choice(params, processors, logits),
                ]
            )
            print(f"| {shape} | {name} | {ours:.0f} | {theirs:.0f} | {theirs / ours:.1f} |")
        [taken] = measure_interleaved([log_probability(logits)])
        print(f"| {shape} | its log-probability | {taken:.0f} | – | – |")


def measure_interleaved(functions: list[Timed]) -> list[float]:
    """Return the median microseconds of each function, timed round-robin."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(ROUNDS):
        for function, taken in zip(functions, times, strict=True):
            started = time.perf_counter()
            function()
            taken.append((time.perf_counter() - started) * 1e6)
    return [median(taken) for taken in times]


if __name__ == "__main__":
    main()
