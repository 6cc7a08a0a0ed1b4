"""The logits of a model of any shape are those of PyTorch."""

import numpy as np
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.random_models import (
    PHASES,
    TOLERANCE,
    configurations,
    random_model,
    random_tokens,
    seeds,
    split_at,
)
from transformers import GPT2Config

from gpt2flow.export.arrays import FloatArray

ROWS = 3


@settings(phases=PHASES, max_examples=examples(100))
@given(
    config=configurations(),
    seed=seeds,
    prompt_shares=st.lists(st.floats(0, 1), min_size=ROWS, max_size=ROWS),
    cuts=st.lists(st.integers(1, 95), max_size=4),
    spans=st.lists(st.integers(1, ROWS), max_size=10),
)
def test_logits_equal_pytorch(
    config: GPT2Config, seed: int, prompt_shares: list[float], cuts: list[int], spans: list[int]
) -> None:
    """Prompts run in chunks, then decode steps with one row or several."""
    most = config.n_positions - len(spans)
    prompts = [max(1, round(share * most)) for share in prompt_shares]
    rows = [random_tokens(config, config.n_positions, seed + row) for row in range(ROWS)]
    with random_model(config, seed, ROWS) as model:
        actual: list[list[FloatArray]] = [[] for _ in rows]
        for slot, length in enumerate(prompts):
            for start, chunk in split_at(rows[slot][:length], cuts):
                count = len(chunk)
                positions = range(start, start + count)
                logits = model.runner.run(chunk, [slot] * count, positions, range(count))
                actual[slot].append(logits)
        lengths = list(prompts)
        for span in spans:
            tokens = [rows[slot][lengths[slot]] for slot in range(span)]
            logits = model.runner.run(tokens, range(span), lengths[:span], range(span))
            for slot in range(span):
                actual[slot].append(logits[slot : slot + 1].copy())
                lengths[slot] += 1
        for slot, row in enumerate(rows):
            logits, expected = np.concatenate(actual[slot]), model.logits(row)[: lengths[slot]]
            if not np.allclose(logits, expected, atol=TOLERANCE, rtol=0):
                # A small model may be too ill-conditioned for float32.
                event("ill-conditioned or wrong")
                assume(model.rounding_error(rows) < TOLERANCE / 4)
            np.testing.assert_allclose(logits, expected, atol=TOLERANCE, rtol=0)
