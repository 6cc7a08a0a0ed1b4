"""A plan's matrices can be stored as the recipe asks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2flow.export.checkpoint.checkpoint import read_checkpoint
from gpt2flow.export.quantization.plan import make_plan
from gpt2flow.export.recipe import RECIPES, KvCache, Method, Profile, Storage

INT4 = RECIPES[Profile.INT4].with_overrides(kv_cache=KvCache.FP32, mixed_precision_budget=0.0)


@pytest.mark.parametrize("method", list(Method))
def test_matrices_of_8_bits_have_no_zero_points(
    make_model: Any, save_checkpoint: Any, tmp_path: Path, method: Method
) -> None:
    source = read_checkpoint(save_checkpoint(make_model(n_embd=48, n_head=4), tmp_path / "source"))
    windows = [np.random.default_rng(0).integers(0, 113, 40)]
    recipe = replace(INT4, method=method, body=Storage(4, 16), head=Storage(8, 16))
    # An fp32 cache needs no reference.
    unused: Any = None
    plan = make_plan(source, recipe, unused, windows, lambda *_: None)
    weight = np.random.default_rng(1).standard_normal((48, 113)).astype(np.float32)
    head = plan.quantizer("lm_head", weight, recipe.head)
    assert head.bits == 8
    assert head.zero_points is None
    layer = plan.quantizer("h.0.mlp.c_proj", weight, recipe.body)
    assert (layer.zero_points is not None) == (method is Method.HQQ)
