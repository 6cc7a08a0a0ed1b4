"""Comparison of a served model with a reference, by their predictions."""

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import cycle
from typing import Final, Protocol

import numpy as np

from gpt2flow.export.arrays import FloatArray, TokenArray

SLOTS: Final = 8
"""Most windows per batch."""

# Rows compared at once: their logits stay in the cache of the processor.
_ROWS: Final = 16

# Sizes of successive batches. The longest window is decoded alone.
_BATCH_SIZES: Final = (1, SLOTS, 4, 3)


class SupportsLogits(Protocol):
    """Model that computes the logits of a whole window."""

    def logits(self, tokens: TokenArray) -> FloatArray:
        """Return the logits after each token, float32 [tokens, vocabulary]."""


class SupportsRuns(Protocol):
    """Interface of the server's `ModelRunner`, which documents it."""

    def run(
        self,
        tokens: Sequence[int],
        slots: Sequence[int],
        positions: Sequence[int],
        rows: Sequence[int],
    ) -> FloatArray:
        """Run new tokens of any slots."""


@dataclass(slots=True)
class Comparison:
    """Sums over the predictions compared so far.

    Attributes:
        tokens: Number of predictions.
        reference_nats: Negative log-likelihood of the text under the reference, in nats.
        nats: Negative log-likelihood of the text under the bundle, in nats.
        agreements: Number of predictions whose most likely token is the same.
        divergence: Sum of Kullback-Leibler divergences of the bundle from the reference, in nats.
    """

    tokens: int = 0
    reference_nats: float = 0.0
    nats: float = 0.0
    agreements: int = 0
    divergence: float = 0.0

    def add(self, reference: FloatArray, logits: FloatArray, targets: TokenArray) -> None:
        """Add predictions.

        Args:
            reference: Logits of the reference, float32 [rows, vocabulary].
            logits: Logits of the bundle, float32 [rows, vocabulary].
            targets: Tokens that follow in the text, int64 [rows].
        """
        for start in range(0, len(targets), _ROWS):
            rows = slice(start, start + _ROWS)
            self._add_rows(reference[rows], logits[rows], targets[rows])

    def _add_rows(self, reference: FloatArray, logits: FloatArray, targets: TokenArray) -> None:
        rows = np.arange(len(targets))
        expected, actual = _log_softmax(reference), _log_softmax(logits)
        self.tokens += len(targets)
        self.reference_nats -= float(expected[rows, targets].sum(dtype=np.float64))
        self.nats -= float(actual[rows, targets].sum(dtype=np.float64))
        self.agreements += int((expected.argmax(-1) == actual.argmax(-1)).sum())
        difference = np.exp(expected) * (expected - actual)
        self.divergence += float(difference.sum(dtype=np.float64))

    def __add__(self, other: "Comparison") -> "Comparison":
        return Comparison(
            *(
                getattr(self, part.name) + getattr(other, part.name)
                for part in dataclasses.fields(self)
            )
        )

    @property
    def perplexity_fp32(self) -> float:
        """Perplexity of the reference."""
        return _exp(self.reference_nats / self.tokens)

    @property
    def perplexity(self) -> float:
        """Perplexity of the bundle."""
        return _exp(self.nats / self.tokens)

    @property
    def perplexity_ratio(self) -> float:
        """Ratio of the bundle's perplexity to that of the reference."""
        return _exp((self.nats - self.reference_nats) / self.tokens)

    @property
    def argmax_agreement(self) -> float:
        """Share of predictions whose most likely token is the same."""
        return self.agreements / self.tokens

    @property
    def mean_kl(self) -> float:
        """Mean Kullback-Leibler divergence of the bundle from the reference, in nats."""
        # Only rounding can make the sum negative.
        return max(0.0, self.divergence / self.tokens)


class Phase(StrEnum):
    """Phase of inference that a prediction comes from."""

    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True)
class PhaseComparison:
    """Sums over predictions, by phase.

    Attributes:
        by_phase: Sums of each phase.
    """

    by_phase: dict[Phase, Comparison] = field(
        default_factory=lambda: {p: Comparison() for p in Phase}
    )

    @property
    def whole(self) -> Comparison:
        """Sum over all phases."""
        return sum(self.by_phase.values(), Comparison())


def compare(
    windows: Sequence[TokenArray],
    reference: SupportsLogits,
    served: SupportsRuns,
    on_tokens: Callable[[int], None] = lambda _done: None,
) -> PhaseComparison:
    """Compare the predictions of a served model with those of a reference.

    Half of each window is prefilled, and the rest decoded, in batches of varying size.

    Args:
        windows: Token windows, int64 [tokens] each, at least two tokens.
        reference: Model to compare with.
        served: Model to verify, with `SLOTS` slots.
        on_tokens: Progress callback, called with the predictions done.
    """
    comparison = PhaseComparison()
    # Longest first, so that the rows still decoding always occupy the first slots.
    ordered = deque(sorted(windows, key=len, reverse=True))
    done = 0
    for count in cycle(_BATCH_SIZES):
        batch = [ordered.popleft() for _ in range(min(count, len(ordered)))]
        for predictions in _compare_batch(batch, reference, served, comparison):
            done += predictions
            on_tokens(done)
        if not ordered:
            break
    return comparison


def _compare_batch(
    windows: Sequence[TokenArray],
    reference: SupportsLogits,
    served: SupportsRuns,
    comparison: PhaseComparison,
) -> Iterator[int]:
    """Compare windows that are decoded as a batch.

    Args:
        windows: Token windows, in order of falling length.
        reference: Model to compare with.
        served: Model to verify.
        comparison: Sums to add the predictions to.

    Yields:
        Number of predictions compared in each step.
    """
    prefill, decode = (comparison.by_phase[each] for each in (Phase.PREFILL, Phase.DECODE))
    starts = np.array([len(window) // 2 for window in windows])
    # Logits of the reference after the prefilled half. The other half is compared at once, and
    # leaves the memory.
    expected = []
    for slot, (window, length) in enumerate(zip(windows, starts.tolist(), strict=True)):
        whole = reference.logits(window[:-1])
        positions = range(length)
        logits = served.run(window[:length].tolist(), [slot] * length, positions, positions)
        prefill.add(whole[:length], logits, window[1 : length + 1])
        expected.append(whole[length:].copy())
        del whole
        yield length
    ends = np.array([len(window) - 1 for window in windows])
    lengths = starts.copy()
    while (rows := int((lengths < ends).sum())) > 0:
        at = [(slot, lengths[slot]) for slot in range(rows)]
        tokens = [int(windows[s][p]) for s, p in at]
        logits = served.run(tokens, range(rows), lengths[:rows].tolist(), range(rows))
        decode.add(
            np.stack([expected[s][p - starts[s]] for s, p in at]),
            logits,
            np.array([windows[s][p + 1] for s, p in at]),
        )
        lengths[:rows] += 1
        yield rows


def _log_softmax(logits: FloatArray) -> FloatArray:
    shifted: FloatArray = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def _exp(nats: float) -> float:
    """Return the exponential of a number, infinity on overflow."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
