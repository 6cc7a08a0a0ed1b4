"""A layer with the widths and heads of GPT-2 XL."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2flow.export.recipe import Profile

# The width is a multiple of 64 but not of 128, and the number of heads is odd.
XL = {"n_embd": 1600, "n_head": 25, "n_layer": 1, "n_positions": 32, "vocab_size": 67}


@pytest.fixture(scope="module")
def model() -> Any:
    """A model with transformers' own initialization, since long sums amplify errors."""
    torch.manual_seed(0)
    config = GPT2Config(**XL, eos_token_id=0, bos_token_id=0, attn_implementation="eager")
    return GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize("profile, share", [(Profile.FP32, 1e-5), (Profile.INT8, 0.02)])
def test_logits_equal_pytorch(model: Any, serve: Any, profile: Profile, share: float) -> None:
    tokens = np.random.default_rng(0).integers(0, 67, 20)
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens[np.newaxis])).logits[0].numpy()
    served = serve(model, profile)
    logits = [served.prefill(0, tokens[:17])]
    logits += [served.step(tokens[at : at + 1], np.array([at])) for at in range(17, 20)]
    difference = np.abs(np.concatenate(logits) - expected).max()
    assert difference < share * np.ptp(expected)
