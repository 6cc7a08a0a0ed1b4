"""Recorder of the runs of all models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from gpt2flow.server.bundle.model_runner import ModelRunner


@dataclass(frozen=True)
class ModelRun:
    """Run of a model.

    Attributes:
        method: `run_chunk` or `decode`.
        tokens: Number of tokens that were run.
        logit_ids: Token ids that the logits were restricted to; None is all.
    """

    method: str
    tokens: int
    logit_ids: Any


def record_runs(monkeypatch: pytest.MonkeyPatch) -> list[ModelRun]:
    """Return a list that grows with each run of a model."""
    runs: list[ModelRun] = []
    run_chunk, decode = ModelRunner.run_chunk, ModelRunner.decode

    def record_chunk(
        runner: ModelRunner, slot: int, tokens: Sequence[int], *rest: Any, **named: Any
    ) -> Any:
        ids = rest[2] if len(rest) > 2 else None
        runs.append(ModelRun("run_chunk", len(tokens), ids))
        return run_chunk(runner, slot, tokens, *rest, **named)

    def record_decode(
        runner: ModelRunner, tokens: Sequence[int], lengths: Sequence[int], ids: Any = None
    ) -> Any:
        runs.append(ModelRun("decode", len(tokens), ids))
        return decode(runner, tokens, lengths, ids)

    monkeypatch.setattr(ModelRunner, "run_chunk", record_chunk)
    monkeypatch.setattr(ModelRunner, "decode", record_decode)
    return runs
