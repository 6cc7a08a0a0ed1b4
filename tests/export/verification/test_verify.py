"""The figures are those of their definitions, and come from prefill followed by decoding."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.errors import QualityGateError
from gpt2flow.export.recipe import Profile
from gpt2flow.export.verification.evaluation_text import EvaluationText
from gpt2flow.export.verification.quality import hold_to_gate
from gpt2flow.export.verification.verify import SLOTS, Comparison, Part, PartedComparison, compare

VOCABULARY = 11


def log(*probabilities: float) -> FloatArray:
    return np.log(np.array([probabilities], np.float32))


def test_figures_of_distributions_that_can_be_checked_by_hand() -> None:
    comparison = Comparison()
    # Logits are free of their norm: a shift changes nothing.
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
    """A model that looks at all of its history: a row of logits."""
    return np.random.default_rng(history).normal(size=VOCABULARY).astype(np.float32)


class Oracle:
    def logits(self, tokens: TokenArray) -> FloatArray:
        history = [int(token) for token in tokens]
        return np.stack([logits_after(history[: end + 1]) for end in range(len(history))])


@dataclass
class Recorder:
    """A served model that keeps what each slot was given, and how."""

    slots: int
    history: dict[int, list[int]] = field(default_factory=dict)
    prefilled: int = 0
    decoded: int = 0
    widest: int = 0

    def prefill(self, slot: int, tokens: TokenArray) -> FloatArray:
        assert slot < self.slots
        self.history[slot] = [int(token) for token in tokens]
        self.prefilled += len(tokens)
        return Oracle().logits(tokens)

    def decode(self, tokens: TokenArray, lengths: TokenArray) -> FloatArray:
        for slot, (token, length) in enumerate(zip(tokens, lengths, strict=True)):
            assert len(self.history[slot]) == length
            self.history[slot].append(int(token))
        self.decoded += len(tokens)
        self.widest = max(self.widest, len(tokens))
        return np.stack([logits_after(self.history[slot]) for slot in range(len(tokens))])


def test_every_token_but_the_first_is_predicted_once_half_of_them_by_decoding() -> None:
    rng = np.random.default_rng(0)
    lengths = (2, 3, 9, 20, 20, 7, 2, 12, 12, 12, 9, 9, 8, 8, 8, 8, 8, 8, 5)
    windows = [rng.integers(0, VOCABULARY, length) for length in lengths]
    served = Recorder(SLOTS)
    told: list[int] = []
    comparison = compare(windows, Oracle(), served, 3, told.append)
    predictions = sum(len(window) - 1 for window in windows)
    assert comparison.whole.tokens == predictions == told[-1]
    # A served model that is the reference shows no difference, so each met its own history.
    assert comparison.whole.argmax_agreement == 1.0
    assert comparison.whole.mean_kl == 0.0
    assert comparison.parts[Part.PREFILL].tokens == served.prefilled
    assert served.prefilled == sum(len(window) // 2 for window in windows)
    assert served.prefilled + served.decoded == predictions
    assert served.widest == SLOTS


@pytest.mark.parametrize("narrow_rows", [1, 3, 5])
def test_few_rows_and_many_are_told_apart(narrow_rows: int) -> None:
    windows = [np.random.default_rng(n).integers(0, VOCABULARY, 20) for n in range(16)]
    served = Recorder(SLOTS)
    comparison = compare(windows, Oracle(), served, narrow_rows)
    few, many = (comparison.parts[part].tokens for part in (Part.FEW_ROWS, Part.MANY_ROWS))
    # Sixteen windows of one length: one alone, then eight together, four and three.
    expected = 9 * sum(rows for rows in (1, 8, 4, 3) if rows <= narrow_rows)
    assert (few, many) == (expected, served.decoded - expected)


@pytest.mark.parametrize("bad", [Part.PREFILL, Part.FEW_ROWS, Part.MANY_ROWS])
def test_a_model_that_errs_on_one_way_only_is_found(bad: Part) -> None:
    class Forgetful(Recorder):
        def prefill(self, slot: int, tokens: TokenArray) -> FloatArray:
            logits = super().prefill(slot, tokens)
            return logits[:, ::-1] if bad is Part.PREFILL else logits

        def decode(self, tokens: TokenArray, lengths: TokenArray) -> FloatArray:
            logits = super().decode(tokens, lengths)
            part = Part.FEW_ROWS if len(tokens) <= 3 else Part.MANY_ROWS
            return logits[:, ::-1] if bad is part else logits

    windows = [np.random.default_rng(n).integers(0, VOCABULARY, 20) for n in range(12)]
    comparison = compare(windows, Oracle(), Forgetful(SLOTS), 3)
    for part, figures in comparison.parts.items():
        assert (figures.argmax_agreement < 0.9) == (part is bad)


def compared(
    perplexity_fp32: float, perplexity: float, part: Part = Part.PREFILL, tokens: int = 1
) -> PartedComparison:
    comparison = PartedComparison(SLOTS)
    reference, bundle = (
        np.repeat(log(1 / p, 1 - 1 / p), tokens, axis=0) for p in (perplexity_fp32, perplexity)
    )
    comparison.parts[part].add(reference, bundle, np.zeros(tokens, np.int64))
    return comparison


TEXT = EvaluationText("eval.txt", (np.array([1, 2]),))


def test_the_gate_lets_one_percent_pass() -> None:
    quality = hold_to_gate(compared(4.0, 4.0399), TEXT, Profile.INT8, force=False)
    assert (quality.gate, quality.forced, quality.tokens) == (1.01, False, 1)
    assert quality.perplexity_ratio == pytest.approx(1.009975, abs=1e-5)


def test_a_miss_is_refused_with_both_figures() -> None:
    with pytest.raises(
        QualityGateError, match=r"perplexity 4\.05 against 4 in fp32 .*1\.0125.*1\.01"
    ):
        hold_to_gate(compared(4.0, 4.05), TEXT, Profile.INT8, force=False)


def test_a_forced_miss_is_on_the_record() -> None:
    assert hold_to_gate(compared(4.0, 4.05), TEXT, Profile.INT8, force=True).forced
    assert not hold_to_gate(compared(4.0, 4.01), TEXT, Profile.INT8, force=True).forced


def test_what_is_no_number_misses_the_gate() -> None:
    comparison = PartedComparison(SLOTS)
    nothing = log(0.5, 0.5) * np.float32("nan")
    comparison.parts[Part.PREFILL].add(log(0.5, 0.5), nothing, np.array([0]))
    with pytest.raises(QualityGateError):
        hold_to_gate(comparison, TEXT, Profile.INT8, force=False)


def test_a_model_that_predicts_nothing_has_a_perplexity_all_the_same() -> None:
    comparison = Comparison()
    comparison.add(log(0.5, 0.5), np.array([[0.0, 1e6]], np.float32), np.array([0]))
    assert comparison.perplexity == math.inf
    assert comparison.perplexity_ratio == math.inf


def test_a_part_that_misses_the_gate_is_not_made_up_for_by_the_others() -> None:
    good = compared(4.0, 4.0, Part.PREFILL, tokens=2000)
    bad = compared(4.0, 4.08, Part.FEW_ROWS, tokens=250)
    good.parts[Part.FEW_ROWS] = bad.parts[Part.FEW_ROWS]
    assert good.whole.perplexity_ratio < 1.01
    with pytest.raises(QualityGateError, match=r"\(decode, few rows\).*1\.02"):
        hold_to_gate(good, TEXT, Profile.INT8, force=False)
    quality = hold_to_gate(good, TEXT, Profile.INT8, force=True)
    assert quality.forced
    assert set(quality.parts) == {"prefill", "decode, few rows"}
    assert quality.parts["decode, few rows"].perplexity_ratio == pytest.approx(1.02, abs=1e-5)


def test_a_part_of_few_tokens_is_left_to_the_whole() -> None:
    few = compared(4.0, 4.0, Part.PREFILL, tokens=2000)
    few.parts[Part.FEW_ROWS] = compared(4.0, 4.2, Part.FEW_ROWS, tokens=20).parts[Part.FEW_ROWS]
    assert not hold_to_gate(few, TEXT, Profile.INT8, force=False).forced
