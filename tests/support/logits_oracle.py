"""Random logits, and the logits processors of transformers."""

from typing import Any

import numpy as np
import torch

from gpt2flow.server.sampling.filters import Floats

VOCABULARY = 200


def random_scores(seed: int, size: int = VOCABULARY, spread: float = 4.0) -> Floats:
    """Return normally distributed logits [size] with a standard deviation of `spread`."""
    scores = np.random.default_rng(seed).normal(0, spread, size)
    return scores.astype(np.float32)


def by_transformers(processor: Any, tokens: list[int], scores: Floats) -> Floats:
    """Apply a logits processor of transformers to the logits after `tokens`."""
    output = processor(torch.tensor([tokens]), torch.from_numpy(scores.copy())[None])
    processed: Floats = output[0].numpy()
    return processed
