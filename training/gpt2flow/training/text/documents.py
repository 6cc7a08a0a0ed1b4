"""Reads a corpus: cleaned documents to train on, and others held back."""

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
    """Cleaned documents."""

    train: list[str]
    valid: list[str]

    @property
    def sha256(self) -> str:
        """The hash of all documents in order."""
        digest = hashlib.sha256()
        for document in [*self.train, *self.valid]:
            digest.update(f"{document}{END}".encode())
        return digest.hexdigest()


def read_texts(
    corpus: Sequence[Path], valid: Sequence[Path], valid_share: float, seed: int
) -> Texts:
    """Read and cleans text files.

    Args:
        corpus: files to train on.
        valid: files to hold back; none: some documents of the corpus are.
        valid_share: how many of them; of a single document, its end.
        seed: of the choice.

    Raises:
        CorpusError: a file is missing or no UTF-8 text, or no text is left.
    """
    documents = _read(corpus)
    if valid:
        return Texts(documents, _read(valid))
    if len(documents) == 1:
        at = round(len(documents[0]) * (1 - valid_share))
        texts = Texts([documents[0][:at]], [documents[0][at:]])
        if not (texts.train[0] and texts.valid[0]):
            raise CorpusError("the corpus is too small: nothing of it can be held back")
        return texts
    count = max(1, round(len(documents) * valid_share))
    chosen = set(random.Random(seed).sample(range(len(documents)), count))
    return Texts(
        [document for i, document in enumerate(documents) if i not in chosen],
        [documents[i] for i in sorted(chosen)],
    )


def _read(paths: Sequence[Path]) -> list[str]:
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
        raise CorpusError(f"{path}: no UTF-8 text, at byte {error.start}") from error
