"""Warm-up of a model before its first request."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gpt2flow.server.bundle.manifest import load_bundle
from gpt2flow.server.bundle.model_runner import ModelRunner
from gpt2flow.server.config.settings import EngineConfig
from gpt2flow.server.models.model import load_model


def test_warm_up_runs_every_kind_of_batch(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks: list[int] = []
    steps: list[tuple[int, Any]] = []
    run_chunk, decode = ModelRunner.run_chunk, ModelRunner.decode

    def record_chunk(
        runner: ModelRunner, slot: int, tokens: Sequence[int], *rest: Any, **more: Any
    ) -> Any:
        chunks.append(len(tokens))
        return run_chunk(runner, slot, tokens, *rest, **more)

    def record_step(runner: ModelRunner, tokens: Sequence[int], *rest: Any) -> Any:
        steps.append((len(tokens), len(rest) > 1))
        return decode(runner, tokens, *rest)

    monkeypatch.setattr(ModelRunner, "run_chunk", record_chunk)
    monkeypatch.setattr(ModelRunner, "decode", record_step)
    config = EngineConfig(threads=1, max_sequences=3, prefill_chunk=32)
    load_model("model", load_bundle(bundle), config)
    assert set(chunks) == {1, 32}
    # One sequence, all sequences, and one sequence with restricted logits.
    assert set(steps) == {(1, False), (3, False), (1, True)}
