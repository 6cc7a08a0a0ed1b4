"""Measures a bundle against the reference, on text, as the server runs it."""

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
"""How many windows are decoded together at most."""

# Graphs have other operators for many rows than for few; each sees about half of the tokens, and
# the longest window is decoded alone.
_TOGETHER: Final = (1, SLOTS, 4, 3)


class Reference(Protocol):
    """What logits are compared with."""

    def logits(self, tokens: TokenArray) -> FloatArray:
        """Return the logits after each token, float32 [tokens, vocabulary]."""


class Served(Protocol):
    """A model that decodes in slots of one cache."""

    def prefill(self, slot: int, tokens: TokenArray) -> FloatArray:
        """Start a slot anew; returns the logits after each token, [tokens, vocabulary]."""

    def decode(self, tokens: TokenArray, lengths: TokenArray) -> FloatArray:
        """Add a token to each of the first slots; returns the logits, [rows, vocabulary]."""


@dataclass(slots=True)
class Comparison:
    """Sums over the predictions that were compared so far."""

    tokens: int = 0
    reference_nats: float = 0.0
    nats: float = 0.0
    agreements: int = 0
    divergence: float = 0.0

    def add(self, reference: FloatArray, logits: FloatArray, targets: TokenArray) -> None:
        """Add predictions: the logits of both, [rows, vocabulary], and the tokens that came."""
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
        """How many times the perplexity of the reference that of the bundle is."""
        return _exp((self.nats - self.reference_nats) / self.tokens)

    @property
    def argmax_agreement(self) -> float:
        """Share of predictions whose most likely token is the same."""
        return self.agreements / self.tokens

    @property
    def mean_kl(self) -> float:
        """Mean Kullback-Leibler divergence of the bundle from the reference, in nats."""
        # It is never negative but by rounding.
        return max(0.0, self.divergence / self.tokens)


class Part(StrEnum):
    """How a prediction came about."""

    PREFILL = "prefill"
    FEW_ROWS = "decode, few rows"
    MANY_ROWS = "decode, many rows"


@dataclass(frozen=True, slots=True)
class PartedComparison:
    """Sums over predictions, by how they came about.

    Attributes:
        narrow_rows: Up to how many rows count as few.
    """

    narrow_rows: int
    parts: dict[Part, Comparison] = field(default_factory=lambda: {p: Comparison() for p in Part})

    def decoding(self, rows: int) -> Comparison:
        """Return the sums that predictions for so many rows belong to."""
        few = rows <= self.narrow_rows
        return self.parts[Part.FEW_ROWS if few else Part.MANY_ROWS]

    @property
    def whole(self) -> Comparison:
        """Sum over all predictions."""
        return sum(self.parts.values(), Comparison())


def compare(
    windows: Sequence[TokenArray],
    reference: Reference,
    served: Served,
    narrow_rows: int = SLOTS,
    on_tokens: Callable[[int], None] = lambda _done: None,
) -> PartedComparison:
    """Compare the predictions of a served model with those of a reference.

    Half of each window is prefilled; the rest is decoded, windows of several slots together,
    sometimes many and sometimes few.

    Args:
        windows: The tokens, int64 [tokens] each, at least two.
        reference: What to compare with.
        served: What to compare, with `SLOTS` slots.
        narrow_rows: Up to how many rows the served model takes the operators for few.
        on_tokens: Told how many predictions are done.
    """
    comparison = PartedComparison(narrow_rows)
    # The longest first, so that the rows that are still decoding are always the first slots.
    ordered = deque(sorted(windows, key=len, reverse=True))
    done = 0
    for count in cycle(_TOGETHER):
        together = [ordered.popleft() for _ in range(min(count, len(ordered)))]
        for predictions in _compare_together(together, reference, served, comparison):
            done += predictions
            on_tokens(done)
        if not ordered:
            break
    return comparison


def _compare_together(
    windows: Sequence[TokenArray],
    reference: Reference,
    served: Served,
    comparison: PartedComparison,
) -> Iterator[int]:
    """Compare windows, in order of falling length, that are decoded together.

    Yields:
        How many predictions each step compared.
    """
    expected = [reference.logits(window[:-1]) for window in windows]
    lengths = np.array([len(window) // 2 for window in windows])
    for slot, (window, length) in enumerate(zip(windows, lengths, strict=True)):
        logits = served.prefill(slot, window[:length])
        prefill = comparison.parts[Part.PREFILL]
        prefill.add(expected[slot][:length], logits, window[1 : length + 1])
        yield int(length)
    ends = np.array([len(window) - 1 for window in windows])
    while (rows := int((lengths < ends).sum())) > 0:
        at = [(slot, lengths[slot]) for slot in range(rows)]
        logits = served.decode(np.array([windows[s][p] for s, p in at]), lengths[:rows])
        comparison.decoding(rows).add(
            np.stack([expected[s][p] for s, p in at]),
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
    """Return e to a power; of a model that predicts nothing, perplexity is infinite."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
