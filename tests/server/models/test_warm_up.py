"""Warm-up of a model before its first request."""

from pathlib import Path

import pytest
from tests.support.model_runs import record_runs

from gpt2flow.server.bundle.manifest import load_bundle
from gpt2flow.server.config.settings import EngineConfig
from gpt2flow.server.models.loading import load_model


def test_warm_up_runs_every_kind_of_batch(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = record_runs(monkeypatch)
    config = EngineConfig(threads=1, max_sequences=3, prefill_chunk=32)
    load_model("model", load_bundle(bundle), config)
    assert {(run.tokens, run.slots, run.logit_ids is not None) for run in runs} == {
        (32, 1, False),
        # One sequence, all sequences, and one sequence with restricted logits.
        (1, 1, False),
        (3, 3, False),
        (1, 1, True),
    }
