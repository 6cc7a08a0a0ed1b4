"""Measures what choosing a token costs, of our sampler and of transformers', as a Markdown table.

    python benchmarks/sampling.py

One row of logits over GPT-2's vocabulary whose chances fall with the rank as those of words do
(Zipf-Mandelbrot), and one whose are all alike, which is the worst case of a nucleus. Medians of
microseconds, in turns; transformers' processors run in PyTorch with one thread.
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

Choose = Callable[[], object]

OPTIONS: dict[str, tuple[SamplingParams, list[object]]] = {
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


def make_logits(name: str) -> Floats:
    """Return logits [vocabulary] in no order."""
    rng = np.random.default_rng(0)
    if name == "flat":
        return rng.normal(0, 0.5, VOCABULARY).astype(np.float32)
    logits: Floats = np.float32(-1.5) * np.log(rng.permutation(VOCABULARY) + 2.7).astype(np.float32)
    return logits


def ours(params: SamplingParams, logits: Floats) -> Choose:
    """Return what chooses a token as the server does."""
    sampler, rng = Sampler(params, []), make_rng(0, 0)
    return lambda: sampler.choose(logits, [0], 1, rng)


def theirs(params: SamplingParams, processors: list[object], logits: Floats) -> Choose:
    """Return what chooses a token as `generate` does."""
    scores, ids = torch.from_numpy(logits)[None], torch.zeros(1, 1, dtype=torch.int64)
    chain = hf.LogitsProcessorList(processors)

    def choose() -> object:
        processed = chain(ids, scores.clone())
        if params.greedy:
            return processed.argmax(-1)
        return torch.multinomial(processed.softmax(-1), 1)

    return choose


def logsumexp(logits: Floats) -> Choose:
    """Return what gives a token its log-probability, which comes on top of all of ours."""
    return lambda: LogitsRows(logits[None]).logprob(0, 5)


def main() -> None:
    """Measure and prints."""
    torch.set_num_threads(1)
    print("| logits | decoding | ours (µs) | transformers (µs) | ratio |\n|---|---|---|---|---|")
    for shape in ("Zipf", "flat"):
        logits = make_logits(shape)
        for name, (params, processors) in OPTIONS.items():
            one, other = in_turns([ours(params, logits), theirs(params, processors, logits)])
            print(f"| {shape} | {name} | {one:.0f} | {other:.0f} | {other / one:.1f} |")
        [seconds] = in_turns([logsumexp(logits)])
        print(f"| {shape} | its log-probability | {seconds:.0f} | – | – |")


def in_turns(functions: list[Choose]) -> list[float]:
    """Return the median microseconds of each."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(ROUNDS):
        for function, taken in zip(functions, times, strict=True):
            begun = time.perf_counter()
            function()
            taken.append((time.perf_counter() - begun) * 1e6)
    return [median(taken) for taken in times]


if __name__ == "__main__":
    main()
