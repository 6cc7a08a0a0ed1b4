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
        tokens: Number of tokens that were run.
        slots: Number of slots that they are of.
        logit_ids: Token ids that the logits were restricted to; None is all.
    """

    tokens: int
    slots: int
    logit_ids: Any


def record_runs(monkeypatch: pytest.MonkeyPatch) -> list[ModelRun]:
    """Return a list that grows with each run of a model."""
    runs: list[ModelRun] = []
    run = ModelRunner.run

    def record(
        runner: ModelRunner, tokens: Sequence[int], slots: Sequence[int], *rest: Any, **named: Any
    ) -> Any:
        ids = rest[2] if len(rest) > 2 else named.get("ids")
        runs.append(ModelRun(len(tokens), len(set(slots)), ids))
        return run(runner, tokens, slots, *rest, **named)

    monkeypatch.setattr(ModelRunner, "run", record)
    return runs
