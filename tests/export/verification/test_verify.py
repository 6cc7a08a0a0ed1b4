"""Metrics match their definitions, and cover prefill and decode."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.errors import QualityGateError
from gpt2flow.export.recipe import Profile
from gpt2flow.export.verification.evaluation_text import EvaluationText
from gpt2flow.export.verification.quality import enforce_quality_gate
from gpt2flow.export.verification.verify import SLOTS, Comparison, Phase, PhaseComparison, compare

VOCABULARY = 11


def log(*probabilities: float) -> FloatArray:
    return np.log(np.array([probabilities], np.float32))


def test_metrics_match_values_computed_by_hand() -> None:
    comparison = Comparison()
    # Logits need not be normalized: a shift changes nothing.
    comparison.add(log(0.5, 0.25, 0.25) + 3, log(0.25, 0.5, 0.25) - 5, np.array([0]))
    comparison.add(log(0.5, 0.25, 0.25), log(0.5, 0.25, 0.25), np.array([1]))
    assert comparison.tokens == 2
    assert comparison.perplexity_fp32 == pytest.approx(math.sqrt(2 * 4))
    assert comparison.perplexity == pytest.approx(math.sqrt(4 * 4))
    assert comparison.argmax_agreement == 0.5
    kl = 0.5 * math.log(0.5 / 0.25) + 0.25 * math.log(0.25 / 0.5)
    assert comparison.mean_kl == pytest.approx(kl / 2)


def test_large_logits_do_not_overflow() -> None:
    comparison = Comparison()
    logits = np.array([[1e4, 0.0, -1e4]], np.float32)
    comparison.add(logits, logits, np.array([0]))
    assert comparison.perplexity == 1.0
    assert comparison.mean_kl == 0.0


def logits_after(history: list[int]) -> FloatArray:
    """Return logits that depend on all of the history."""
    return np.random.default_rng(history).normal(size=VOCABULARY).astype(np.float32)


class Oracle:
    def logits(self, tokens: TokenArray) -> FloatArray:
        history = [int(token) for token in tokens]
        return np.stack([logits_after(history[: end + 1]) for end in range(len(history))])


@dataclass
class Recorder:
    """A served model that records the tokens of each slot."""

    slots: int
    history: dict[int, list[int]] = field(default_factory=dict)
    prefilled: int = 0
    decoded: int = 0
    largest_batch: int = 0

    def run(
        self,
        tokens: Sequence[int],
        slots: Sequence[int],
        positions: Sequence[int],
        rows: Sequence[int],
    ) -> FloatArray:
        assert list(rows) == list(range(len(tokens)))
        assert max(slots) < self.slots
        logits = []
        if prefill := positions[0] == 0:
            self.history[slots[0]] = []
            self.prefilled += len(tokens)
        else:
            self.decoded += len(tokens)
            self.largest_batch = max(self.largest_batch, len(tokens))
        for token, slot, position in zip(tokens, slots, positions, strict=True):
            assert len(self.history[slot]) == position
            self.history[slot].append(token)
            logits.append(logits_after(self.history[slot]))
        assert not prefill or len(set(slots)) == 1
        return np.stack(logits)


def test_every_token_but_the_first_is_predicted_once() -> None:
    rng = np.random.default_rng(0)
    lengths = (2, 3, 9, 20, 20, 7, 2, 12, 12, 12, 9, 9, 8, 8, 8, 8, 8, 8, 5)
    windows = [rng.integers(0, VOCABULARY, length) for length in lengths]
    served = Recorder(SLOTS)
    progress: list[int] = []
    comparison = compare(windows, Oracle(), served, progress.append)
    predictions = sum(len(window) - 1 for window in windows)
    assert comparison.whole.tokens == predictions == progress[-1]
    # Predictions agree only if every slot has the right history.
    assert comparison.whole.argmax_agreement == 1.0
    assert comparison.whole.mean_kl == 0.0
    assert comparison.by_phase[Phase.PREFILL].tokens == served.prefilled
    assert served.prefilled == sum(len(window) // 2 for window in windows)
    assert served.prefilled + served.decoded == predictions
    assert served.largest_batch == SLOTS


@pytest.mark.parametrize("bad", list(Phase))
def test_an_error_in_a_single_phase_is_detected(bad: Phase) -> None:
    class FaultyModel(Recorder):
        def run(self, *inputs: Any) -> FloatArray:
            logits: FloatArray = super().run(*inputs)
            phase = Phase.PREFILL if inputs[2][0] == 0 else Phase.DECODE
            return logits[:, ::-1] if bad is phase else logits

    windows = [np.random.default_rng(n).integers(0, VOCABULARY, 20) for n in range(12)]
    comparison = compare(windows, Oracle(), FaultyModel(SLOTS))
    for phase, figures in comparison.by_phase.items():
        assert (figures.argmax_agreement < 0.9) == (phase is bad)


def compared(
    perplexity_fp32: float, perplexity: float, phase: Phase = Phase.PREFILL, tokens: int = 1
) -> PhaseComparison:
    comparison = PhaseComparison()
    reference, bundle = (
        np.repeat(log(1 / p, 1 - 1 / p), tokens, axis=0) for p in (perplexity_fp32, perplexity)
    )
    comparison.by_phase[phase].add(reference, bundle, np.zeros(tokens, np.int64))
    return comparison


TEXT = EvaluationText("eval.txt", (np.array([1, 2]),))


def test_a_ratio_below_the_gate_passes() -> None:
    quality = enforce_quality_gate(compared(4.0, 4.0399), TEXT, Profile.INT8, force=False)
    assert (quality.gate, quality.forced, quality.tokens) == (1.01, False, 1)
    assert quality.perplexity_ratio == pytest.approx(1.009975, abs=1e-5)


def test_a_refusal_reports_both_perplexities() -> None:
    with pytest.raises(
        QualityGateError, match=r"perplexity 4\.05 against 4 in fp32, ratio 1\.0125, limit 1\.01;"
    ):
        enforce_quality_gate(compared(4.0, 4.05), TEXT, Profile.INT8, force=False)


def test_a_forced_miss_is_recorded_in_the_manifest() -> None:
    assert enforce_quality_gate(compared(4.0, 4.05), TEXT, Profile.INT8, force=True).forced
    assert not enforce_quality_gate(compared(4.0, 4.01), TEXT, Profile.INT8, force=True).forced


def test_nan_misses_the_gate() -> None:
    comparison = PhaseComparison()
    nothing = log(0.5, 0.5) * np.float32("nan")
    comparison.by_phase[Phase.PREFILL].add(log(0.5, 0.5), nothing, np.array([0]))
    with pytest.raises(QualityGateError):
        enforce_quality_gate(comparison, TEXT, Profile.INT8, force=False)


def test_an_overflowing_perplexity_is_infinite() -> None:
    comparison = Comparison()
    comparison.add(log(0.5, 0.5), np.array([[0.0, 1e6]], np.float32), np.array([0]))
    assert comparison.perplexity == math.inf
    assert comparison.perplexity_ratio == math.inf


def test_a_single_phase_can_miss_the_gate() -> None:
    good = compared(4.0, 4.0, Phase.PREFILL, tokens=2000)
    bad = compared(4.0, 4.08, Phase.DECODE, tokens=250)
    good.by_phase[Phase.DECODE] = bad.by_phase[Phase.DECODE]
    assert good.whole.perplexity_ratio < 1.01
    with pytest.raises(QualityGateError, match=r"\(decode\).*1\.02"):
        enforce_quality_gate(good, TEXT, Profile.INT8, force=False)
    quality = enforce_quality_gate(good, TEXT, Profile.INT8, force=True)
    assert quality.forced
    assert set(quality.parts) == {"prefill", "decode"}
    assert quality.parts["decode"].perplexity_ratio == pytest.approx(1.02, abs=1e-5)


def test_a_phase_with_few_tokens_is_not_gated() -> None:
    few = compared(4.0, 4.0, Phase.PREFILL, tokens=2000)
    few.by_phase[Phase.DECODE] = compared(4.0, 4.2, Phase.DECODE, tokens=20).by_phase[Phase.DECODE]
    assert not enforce_quality_gate(few, TEXT, Profile.INT8, force=False).forced
