"""The figures are those of their definitions, and come from prefill followed by decoding."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from gpt2flow.export.arrays import FloatArray, TokenArray
from gpt2flow.export.errors import QualityGateError
from gpt2flow.export.evaluation_text import EvaluationText
from gpt2flow.export.quality import hold_to_gate
from gpt2flow.export.recipe import Profile
from gpt2flow.export.verify import Comparison, compare, slots_for

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


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_every_token_but_the_first_is_predicted_once_half_of_them_by_decoding(slots: int) -> None:
    rng = np.random.default_rng(0)
    windows = [rng.integers(0, VOCABULARY, length) for length in (2, 3, 9, 20, 20, 7, 2)]
    served = Recorder(slots)
    told: list[int] = []
    comparison = compare(windows, Oracle(), served, slots, told.append)
    predictions = sum(len(window) - 1 for window in windows)
    assert comparison.tokens == predictions == told[-1]
    # A served model that is the reference shows no difference, so each met its own history.
    assert comparison.argmax_agreement == 1.0
    assert comparison.mean_kl == 0.0
    assert served.prefilled == sum(len(window) // 2 for window in windows)
    assert served.prefilled + served.decoded == predictions
    assert served.widest == min(slots, 5)


def test_a_model_that_errs_only_while_decoding_is_found() -> None:
    class Forgetful(Recorder):
        def decode(self, tokens: TokenArray, lengths: TokenArray) -> FloatArray:
            return super().decode(tokens, lengths)[:, ::-1]

    windows = [np.random.default_rng(0).integers(0, VOCABULARY, 20)]
    assert compare(windows, Oracle(), Forgetful(1), 1).argmax_agreement < 0.9


def test_slots_are_as_many_as_their_logits_fit_into_memory() -> None:
    assert slots_for(512, 4096) == 8
    assert slots_for(1024, 50257) == 2
    assert slots_for(1024, 10**6) == 1


def compared(perplexity_fp32: float, perplexity: float) -> Comparison:
    comparison = Comparison()
    reference, bundle = (log(1 / p, 1 - 1 / p) for p in (perplexity_fp32, perplexity))
    comparison.add(reference, bundle, np.array([0]))
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
    comparison = Comparison()
    comparison.add(log(0.5, 0.5), log(0.5, 0.5) * np.float32("nan"), np.array([0]))
    with pytest.raises(QualityGateError):
        hold_to_gate(comparison, TEXT, Profile.INT8, force=False)
