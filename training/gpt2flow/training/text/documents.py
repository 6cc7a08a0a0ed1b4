"""Corpus reading: cleaned documents, split into training and validation sets."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt2flow.agent.flows.prompt import END
from gpt2flow.training.errors import CorpusError
from gpt2flow.training.text.clean import clean_documents
from gpt2flow.training.text.formats import Document
from gpt2flow.training.text.reader import read_documents


@dataclass(frozen=True)
class Texts:
    """Cleaned documents of the training and validation sets.

    Attributes:
        train: Documents to train on.
        valid: Documents of the validation set.
        cleaning: Count for each of `CLEANING_STEPS`, of both sets.
    """

    train: list[str]
    valid: list[str]
    cleaning: dict[str, int]

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of all documents in order."""
        digest = hashlib.sha256()
        for document in [*self.train, *self.valid]:
            digest.update(f"{document}{END}".encode())
        return digest.hexdigest()


def read_texts(
    corpus: Sequence[Path], valid: Sequence[Path], valid_share: float, seed: int
) -> Texts:
    """Read and clean files of the formats that `read_documents` reads.

    Args:
        corpus: Files of the training set.
        valid: Files of the validation set. If empty, documents of the corpus are sampled.
        valid_share: Share of the documents to sample, at least one; those of one conversation
            count as one. A single document is cut, and its end becomes the validation set.
        seed: Seed of the sampling.

    Raises:
        CorpusError: A file is missing or cannot be read in its format, no text is left after
            cleaning, or a single document is too short to be cut.
    """
    documents, counts = _read_cleaned(corpus)
    if valid:
        train, (held_out, more) = documents, _read_cleaned(valid)
        counts = {step: count + more[step] for step, count in counts.items()}
    else:
        train, held_out = _split(documents, valid_share, seed)
    return Texts([each.text for each in train], [each.text for each in held_out], counts)


def _split(
    documents: Sequence[Document], valid_share: float, seed: int
) -> tuple[list[Document], list[Document]]:
    """Sample the validation set; documents of one conversation are on one side."""
    groups = [
        i if each.conversation is None else each.conversation for i, each in enumerate(documents)
    ]
    distinct = list(dict.fromkeys(groups))
    if len(distinct) == 1:
        return _cut(documents, valid_share)
    count = max(1, round(len(distinct) * valid_share))
    sampled = {distinct[i] for i in random.Random(seed).sample(range(len(distinct)), count)}
    train: list[Document] = []
    valid: list[Document] = []
    for group, document in zip(groups, documents, strict=True):
        (valid if group in sampled else train).append(document)
    return train, valid


def _cut(
    documents: Sequence[Document], valid_share: float
) -> tuple[list[Document], list[Document]]:
    """Cut the only document of a corpus, unless it is a conversation."""
    document = documents[0]
    if document.conversation is not None:
        raise CorpusError(
            "the corpus is too small: its only conversation cannot be divided into training and "
            "validation set; add text or pass validation files"
        )
    cut = round(len(document.text) * (1 - valid_share))
    sides = document.text[:cut], document.text[cut:]
    if not all(sides):
        raise CorpusError(
            "the corpus is too small: its only document cannot be cut into training and "
            "validation set; add text or pass validation files"
        )
    train, valid = ([Document(side)] for side in sides)
    return train, valid


def _read_cleaned(paths: Sequence[Path]) -> tuple[list[Document], dict[str, int]]:
    read = (document for path in paths for document in read_documents(path))
    documents, counts = clean_documents(read)
    if not documents:
        raise CorpusError(f"no text is left after cleaning {', '.join(map(str, paths))}")
    return documents, counts
