"""Corpus reading: cleaned documents, split into training and validation sets."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt2flow.agent.flows.prompt import END
from gpt2flow.training.errors import CorpusError
from gpt2flow.training.text.clean import clean_documents, split_documents


@dataclass(frozen=True)
class Texts:
    """Cleaned documents of the training and validation sets."""

    train: list[str]
    valid: list[str]

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
    """Read and clean text files.

    Args:
        corpus: Files of the training set.
        valid: Files of the validation set. If empty, documents of the corpus are sampled.
        valid_share: Share of the corpus to sample, at least one document. A single document is
            cut, and its end becomes the validation set.
        seed: Seed of the sampling.

    Raises:
        CorpusError: A file is missing or not UTF-8 text, no text is left after cleaning, or a
            single document is too short to be cut.
    """
    documents = _read_cleaned(corpus)
    if valid:
        return Texts(documents, _read_cleaned(valid))
    if len(documents) == 1:
        cut = round(len(documents[0]) * (1 - valid_share))
        texts = Texts([documents[0][:cut]], [documents[0][cut:]])
        if not (texts.train[0] and texts.valid[0]):
            raise CorpusError(
                "the corpus is too small: its only document cannot be cut into training and "
                "validation set; add text or pass validation files"
            )
        return texts
    count = max(1, round(len(documents) * valid_share))
    sampled = set(random.Random(seed).sample(range(len(documents)), count))
    return Texts(
        [document for i, document in enumerate(documents) if i not in sampled],
        [documents[i] for i in sorted(sampled)],
    )


def _read_cleaned(paths: Sequence[Path]) -> list[str]:
    documents = list(clean_documents(d for path in paths for d in _read_file(path)))
    if not documents:
        raise CorpusError(f"no text is left after cleaning {', '.join(map(str, paths))}")
    return documents


def _read_file(path: Path) -> list[str]:
    try:
        return list(split_documents(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CorpusError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 text, at byte {error.start}") from error
