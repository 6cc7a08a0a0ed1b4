"""Which tokens are trained on in which step: a plan that depends on the seed alone."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.text.encoding import EncodedCorpus

# Pieces of the corpus, as [start, stop) of its tokens.
Row = list[tuple[int, int]]


@dataclass(frozen=True)
class Batch:
    """One step's tokens.

    Attributes:
        ids: int64 [rows, tokens], padded at the end.
        trained: whether the loss counts a token, bool [rows, tokens]; never the
            first of a row.
    """

    ids: npt.NDArray[np.int64]
    trained: npt.NDArray[np.bool_]


class BatchPlan:
    """All batches of a run, by step.

    A document is a row of its own, or part of a packed row that fills the
    context; one longer than the context is cut into packed rows.
    """

    def __init__(self, corpus: EncodedCorpus, config: TrainingConfig) -> None:
        self._corpus = corpus
        self._config = config
        epochs = (self._epoch(number) for number in range(config.epochs))
        self._batches = [batch for epoch in epochs for batch in epoch]

    def __len__(self) -> int:
        return len(self._batches)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step."""
        rng = np.random.default_rng([self._config.seed, 1, step])
        return _collate(self._corpus, self._batches[step], self._config, rng)

    def _epoch(self, number: int) -> list[list[Row]]:
        rng = np.random.default_rng([self._config.seed, 0, number])
        rows = _rows(self._corpus, self._config, rng)
        batches = _batches(rows, self._config)
        return [batches[i] for i in rng.permutation(len(batches))]


def evaluation_batches(corpus: EncodedCorpus, config: TrainingConfig) -> Iterator[Batch]:
    """Yield every document as a row of its own; every token that matters is marked."""
    rng = np.random.default_rng(0)
    config = config.changed(packed_share=0.0, context_share=0.0)
    rows = _rows(corpus, config, rng)
    return (_collate(corpus, batch, config, rng) for batch in _batches(rows, config))


def _length(row: Row) -> int:
    return sum(stop - start for start, stop in row)


def _rows(corpus: EncodedCorpus, config: TrainingConfig, rng: np.random.Generator) -> list[Row]:
    """Lay all documents out in rows, in random order."""
    order = rng.permutation(len(corpus))
    starts, stops = corpus.starts[order], corpus.starts[order + 1]
    drawn = rng.random(len(order)) < config.packed_share
    packed = (stops - starts > config.context_length) | drawn
    pieces = [(int(a), int(b)) for a, b in zip(starts, stops, strict=True)]
    rows = [[piece] for piece, is_packed in zip(pieces, packed, strict=True) if not is_packed]
    rows += _pack(
        (piece for piece, is_packed in zip(pieces, packed, strict=True) if is_packed),
        config.context_length,
    )
    return [rows[i] for i in rng.permutation(len(rows))]


def _pack(pieces: Iterable[tuple[int, int]], context_length: int) -> Iterator[Row]:
    """Yield rows of `context_length` tokens; only the last may be shorter."""
    row: Row = []
    room = context_length
    for piece_start, stop in pieces:
        start = piece_start
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


def _batches(rows: Iterable[Row], config: TrainingConfig) -> list[list[Row]]:
    """Group rows of about one length into batches of `batch_tokens` with padding."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(_padded(_length(row), config.context_length), []).append(row)
    batches: list[list[Row]] = []
    for length, group in sorted(groups.items()):
        count = max(1, config.batch_tokens // length)
        batches += [group[i : i + count] for i in range(0, len(group), count)]
    return batches


def _padded(length: int, context_length: int) -> int:
    """The length that a row is padded to: one of some twenty.

    The matrix products of each new shape are compiled, which takes longer than
    a step.
    """
    step = max(8, 1 << max(0, (length - 1).bit_length() - 3))
    return min(-(-length // step) * step, context_length)


def _collate(
    corpus: EncodedCorpus, rows: Sequence[Row], config: TrainingConfig, rng: np.random.Generator
) -> Batch:
    """Pad rows to one length and draws which context tokens are trained."""
    shape = len(rows), _padded(max(map(_length, rows)), config.context_length)
    ids = np.full(shape, corpus.end_id, dtype=np.int64)
    trained = np.zeros(shape, dtype=np.bool_)
    for i, row in enumerate(rows):
        length = _length(row)
        ids[i, :length] = np.concatenate([corpus.ids[a:b] for a, b in row])
        matters = np.concatenate([corpus.matters[a:b] for a, b in row])
        trained[i, :length] = matters | (rng.random(length) < config.context_share)
    trained[:, 0] = False
    return Batch(ids, trained)
