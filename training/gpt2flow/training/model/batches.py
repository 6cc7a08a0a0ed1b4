"""Batches of a training run, planned ahead.

The plan depends on corpus, settings and seed alone, so that a resumed run continues with the same
batches.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.text.encoding import EncodedCorpus

# Spans [start, stop) of the corpus, in tokens, that are concatenated into one row of a batch.
Row = list[tuple[int, int]]


@dataclass(frozen=True)
class Batch:
    """Rows of tokens that are computed together.

    Attributes:
        ids: Token ids, int64 [rows, tokens], padded at the end with `<|endoftext|>`.
        loss_mask: Tokens that count in the loss, bool [rows, tokens]; never the first of a row,
            which has no context, nor padding.
    """

    ids: npt.NDArray[np.int64]
    loss_mask: npt.NDArray[np.bool_]


class BatchPlan:
    """All batches of a run, grouped into steps of `accumulate_steps` batches.

    The last step may have fewer. A document has a row of its own, or shares a packed row that
    fills the context. A document longer than the context is split across packed rows.
    """

    def __init__(self, corpus: EncodedCorpus, config: TrainingConfig) -> None:
        self._corpus = corpus
        self._config = config
        epochs = (self._plan_epoch(number) for number in range(config.epochs))
        self._batches = [batch for epoch in epochs for batch in epoch]

    def __len__(self) -> int:
        """Return the number of steps."""
        return math.ceil(len(self._batches) / self._config.accumulate_steps)

    def step(self, number: int) -> list[Batch]:
        """Return the batches of a step, counted from 0."""
        count = self._config.accumulate_steps
        numbers = range(len(self._batches))[number * count : (number + 1) * count]
        return [self._batch(each) for each in numbers]

    def _batch(self, number: int) -> Batch:
        rng = np.random.default_rng([self._config.seed, 1, number])
        return _collate(self._corpus, self._batches[number], self._config, rng)

    def _plan_epoch(self, number: int) -> list[list[Row]]:
        rng = np.random.default_rng([self._config.seed, 0, number])
        rows = _lay_out_rows(self._corpus, self._config, rng)
        batches = _group_rows(rows, self._config)
        return [batches[i] for i in rng.permutation(len(batches))]


def evaluation_batches(corpus: EncodedCorpus, config: TrainingConfig) -> Iterator[Batch]:
    """Yield batches of one document per row.

    Target tokens alone count in the loss. Documents longer than the context are split across
    packed rows.
    """
    rng = np.random.default_rng(0)
    config = config.changed(packed_share=0.0, context_share=0.0)
    rows = _lay_out_rows(corpus, config, rng)
    return (_collate(corpus, batch, config, rng) for batch in _group_rows(rows, config))


def _row_length(row: Row) -> int:
    return sum(stop - start for start, stop in row)


def _lay_out_rows(
    corpus: EncodedCorpus, config: TrainingConfig, rng: np.random.Generator
) -> list[Row]:
    """Lay out all documents in rows, in random order."""
    order = rng.permutation(len(corpus))
    starts, stops = corpus.starts[order], corpus.starts[order + 1]
    sampled = rng.random(len(order)) < config.packed_share
    packed = (stops - starts > config.context_length) | sampled
    spans = [(int(a), int(b)) for a, b in zip(starts, stops, strict=True)]
    rows = [[span] for span, is_packed in zip(spans, packed, strict=True) if not is_packed]
    rows += _pack(
        (span for span, is_packed in zip(spans, packed, strict=True) if is_packed),
        config.context_length,
    )
    return [rows[i] for i in rng.permutation(len(rows))]


def _pack(spans: Iterable[tuple[int, int]], context_length: int) -> Iterator[Row]:
    """Yield rows of exactly `context_length` tokens, except a shorter last one."""
    row: Row = []
    room = context_length
    for span_start, stop in spans:
        start = span_start
        while start < stop:
            end = min(stop, start + room)
            row.append((start, end))
            room -= end - start
            start = end
            if room == 0:
                yield row
                row, room = [], context_length
    if row:
        yield row


def _group_rows(rows: Iterable[Row], config: TrainingConfig) -> list[list[Row]]:
    """Group rows by padded length into batches of at most `batch_tokens` tokens.

    A row longer than `batch_tokens` has a batch of its own.
    """
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(_padded_length(_row_length(row), config.context_length), []).append(row)
    batches: list[list[Row]] = []
    for length, group in sorted(groups.items()):
        count = max(1, config.batch_tokens // length)
        batches += [group[i : i + count] for i in range(0, len(group), count)]
    return batches


def _padded_length(length: int, context_length: int) -> int:
    """Return the padded length of a row, one of about twenty.

    The matrix products of each new shape are compiled, which takes longer than a step.
    """
    step = max(8, 1 << max(0, (length - 1).bit_length() - 3))
    return min(-(-length // step) * step, context_length)


def _collate(
    corpus: EncodedCorpus, rows: Sequence[Row], config: TrainingConfig, rng: np.random.Generator
) -> Batch:
    """Pad rows to one length and sample context tokens for the loss."""
    shape = len(rows), _padded_length(max(map(_row_length, rows)), config.context_length)
    ids = np.full(shape, corpus.end_id, dtype=np.int64)
    loss_mask = np.zeros(shape, dtype=np.bool_)
    for i, row in enumerate(rows):
        length = _row_length(row)
        ids[i, :length] = np.concatenate([corpus.ids[a:b] for a, b in row])
        targets = np.concatenate([corpus.target_mask[a:b] for a, b in row])
        loss_mask[i, :length] = targets | (rng.random(length) < config.context_share)
    loss_mask[:, 0] = False
    return Batch(ids, loss_mask)
