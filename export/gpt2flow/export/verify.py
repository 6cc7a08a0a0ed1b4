"""Measures a bundle against the reference, on text, as the server runs it."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from gpt2flow.export.arrays import FloatArray, TokenArray

_MAX_SLOTS: Final = 8
# Reference logits of all slots are held until the bundle has decoded the same tokens.
_LOGITS_BYTES: Final = 512 * 1024**2


class Reference(Protocol):
    """What logits are compared with."""

    def logits(self, tokens: TokenArray) -> FloatArray:
        """Returns the logits after each token, float32 [tokens, vocabulary]."""


class Served(Protocol):
    """A model that decodes in slots of one cache."""

    def prefill(self, slot: int, tokens: TokenArray) -> FloatArray:
        """Starts a slot anew; returns the logits after each token, [tokens, vocabulary]."""

    def decode(self, tokens: TokenArray, lengths: TokenArray) -> FloatArray:
        """Adds a token to each of the first slots; returns the logits, [rows, vocabulary]."""


@dataclass(slots=True)
class Comparison:
    """Sums over the predictions that were compared so far."""

    tokens: int = 0
    _reference_nats: float = field(default=0.0)
    _nats: float = field(default=0.0)
    _agreements: int = field(default=0)
    _divergence: float = field(default=0.0)

    def add(self, reference: FloatArray, logits: FloatArray, targets: TokenArray) -> None:
        """Adds predictions: the logits of both, [rows, vocabulary], and the tokens that came."""
        rows = np.arange(len(targets))
        expected, actual = _log_softmax(reference), _log_softmax(logits)
        self.tokens += len(targets)
        self._reference_nats -= float(expected[rows, targets].sum(dtype=np.float64))
        self._nats -= float(actual[rows, targets].sum(dtype=np.float64))
        self._agreements += int((expected.argmax(-1) == actual.argmax(-1)).sum())
        divergence = np.exp(expected) * (expected - actual)
        self._divergence += float(divergence.sum(dtype=np.float64))

    @property
    def perplexity_fp32(self) -> float:
        """Perplexity of the reference."""
        return math.exp(self._reference_nats / self.tokens)

    @property
    def perplexity(self) -> float:
        """Perplexity of the bundle."""
        return math.exp(self._nats / self.tokens)

    @property
    def argmax_agreement(self) -> float:
        """Share of predictions whose most likely token is the same."""
        return self._agreements / self.tokens

    @property
    def mean_kl(self) -> float:
        """Mean Kullback-Leibler divergence of the bundle from the reference, in nats."""
        # It is never negative but by rounding.
        return max(0.0, self._divergence / self.tokens)


def slots_for(context_length: int, vocabulary_size: int) -> int:
    """Returns how many windows to decode together so that their logits fit into memory."""
    window_bytes = context_length * vocabulary_size * np.dtype(np.float32).itemsize
    return max(1, min(_MAX_SLOTS, _LOGITS_BYTES // window_bytes))


def compare(
    windows: Sequence[TokenArray],
    reference: Reference,
    served: Served,
    slots: int,
    on_tokens: Callable[[int], None] = lambda _done: None,
) -> Comparison:
    """Compares the predictions of a served model with those of a reference.

    Half of each window is prefilled; the rest is decoded, windows of several slots together.

    Args:
        windows: The tokens, int64 [tokens] each, at least two.
        reference: What to compare with.
        served: What to compare, with that many slots.
        slots: How many windows are decoded together.
        on_tokens: Told how many predictions are done.
    """
    comparison = Comparison()
    # The longest first, so that the rows that are still decoding are always the first slots.
    ordered = sorted(windows, key=len, reverse=True)
    for start in range(0, len(ordered), slots):
        together = ordered[start : start + slots]
        for _ in _compare_together(together, reference, served, comparison):
            on_tokens(comparison.tokens)
    return comparison


def _compare_together(
    windows: Sequence[TokenArray], reference: Reference, served: Served, comparison: Comparison
) -> Iterator[None]:
    """Compares windows, in order of falling length, that are decoded together, step by step."""
    expected = [reference.logits(window[:-1]) for window in windows]
    lengths = np.array([len(window) // 2 for window in windows])
    for slot, (window, length) in enumerate(zip(windows, lengths, strict=True)):
        logits = served.prefill(slot, window[:length])
        comparison.add(expected[slot][:length], logits, window[1 : length + 1])
        yield
    ends = np.array([len(window) - 1 for window in windows])
    while (rows := int((lengths < ends).sum())) > 0:
        at = [(slot, lengths[slot]) for slot in range(rows)]
        logits = served.decode(np.array([windows[s][p] for s, p in at]), lengths[:rows])
        comparison.add(
            np.stack([expected[s][p] for s, p in at]),
            logits,
            np.array([windows[s][p + 1] for s, p in at]),
        )
        lengths[:rows] += 1
        yield


def _log_softmax(logits: FloatArray) -> FloatArray:
    shifted: FloatArray = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted
