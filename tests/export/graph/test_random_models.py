"""Whatever the shape of a model: its logits are those of PyTorch."""

import numpy as np
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from tests.support.random_models import (
    PHASES,
    TOLERANCE,
    configurations,
    pieces,
    random_model,
    seeds,
    some_tokens,
)
from transformers import GPT2Config

from gpt2flow.export.arrays import FloatArray

ROWS = 3


@settings(phases=PHASES, max_examples=100)
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
    """Prompts in chunks, then steps of one row alone or of several of different lengths."""
    most = config.n_positions - len(spans)
    prompts = [max(1, round(share * most)) for share in prompt_shares]
    rows = [some_tokens(config, config.n_positions, seed + row) for row in range(ROWS)]
    with random_model(config, seed, ROWS) as model:
        actual: list[list[FloatArray]] = [[] for _ in rows]
        for slot, length in enumerate(prompts):
            for start, chunk in pieces(rows[slot][:length], cuts):
                actual[slot].append(model.runner.run_chunk(slot, chunk, start, range(len(chunk))))
        lengths = list(prompts)
        for span in spans:
            tokens = [rows[slot][lengths[slot]] for slot in range(span)]
            logits = model.runner.decode(tokens, lengths[:span])
            for slot in range(span):
                actual[slot].append(logits[slot : slot + 1].copy())
                lengths[slot] += 1
        for slot, row in enumerate(rows):
            logits, wanted = np.concatenate(actual[slot]), model.logits(row)[: lengths[slot]]
            if not np.allclose(logits, wanted, atol=TOLERANCE, rtol=0):
                # A narrow model may be so ill-conditioned that float32 cannot say its logits.
                event("ill-conditioned or wrong")
                assume(model.rounding(rows) < TOLERANCE / 4)
            np.testing.assert_allclose(logits, wanted, atol=TOLERANCE, rtol=0)
