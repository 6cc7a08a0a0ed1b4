"""Evaluation text, cut into windows of tokens."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from tokenizers import Tokenizer

from gpt2flow.export.arrays import TokenArray
from gpt2flow.export.checkpoint.vocabulary import END_OF_TEXT
from gpt2flow.export.errors import EvaluationTextError, first_line

# Enough to measure a ratio of perplexities to some tenths of a percent, within seconds.
TOKEN_BUDGET: Final = 4000

DEFAULT_TEXT: Final = Path(__file__).with_name("default_text.txt")
"""Text in English and Chinese for models that bring none.

Documents alternate, so that either half of them has both languages.
"""


@dataclass(frozen=True, slots=True)
class EvaluationText:
    """Windows of one text, none longer than the context of the model.

    Attributes:
        name: Name of the file and hash of its content.
        windows: Token windows, int64 [tokens] each, of at least two tokens. All but the first
            token are predicted.
    """

    name: str
    windows: tuple[TokenArray, ...]

    @property
    def predictions(self) -> int:
        """Number of predicted tokens in all windows."""
        return sum(len(window) - 1 for window in self.windows)


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """Tokens of one text.

    Attributes:
        name: Name of the file and hash of its content.
        documents: Tokens of each document, int64 [tokens], at least two. There is at least one
            document.
    """

    name: str
    documents: list[TokenArray]

    def windows(self, length: int, budget: int = TOKEN_BUDGET) -> EvaluationText:
        """Cut the text into windows that do not cross documents.

        Args:
            length: Most tokens per window.
            budget: Most predictions in total, approximately. A longer text is sampled evenly.
        """
        windows = [
            tokens[start : start + length]
            for tokens in self.documents
            for start in range(0, len(tokens), length)
        ]
        return EvaluationText(
            self.name, _sample_evenly([window for window in windows if len(window) > 1], budget)
        )


def read_text(path: Path, tokenizer: Tokenizer) -> TokenizedText:
    """Read a text of one or more documents, each ended by `<|endoftext|>`.

    Raises:
        EvaluationTextError: The file is unreadable, or has nothing to predict.
    """
    try:
        content = path.read_bytes()
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationTextError(f"{path} cannot be read as text: {first_line(error)}") from error
    documents = [tokens for tokens in _tokenize_documents(text, tokenizer) if len(tokens) > 1]
    if not documents:
        raise EvaluationTextError(f"{path} holds less than two tokens; there is nothing to predict")
    return TokenizedText(f"{path.name} sha256:{hashlib.sha256(content).hexdigest()}", documents)


def _tokenize_documents(text: str, tokenizer: Tokenizer) -> list[TokenArray]:
    """Return the tokens of each document, with any `<|endoftext|>` that ends it."""
    end_id = tokenizer.token_to_id(END_OF_TEXT)
    end = [] if end_id is None else [end_id]
    parts = [part.strip("\r\n") for part in text.split(END_OF_TEXT)]
    tokenizer.no_truncation()
    tokenizer.no_padding()
    encodings = tokenizer.encode_batch(parts, add_special_tokens=False)
    ended = [
        encoding.ids + (end if number < len(parts) - 1 else [])
        for number, encoding in enumerate(encodings)
    ]
    return [np.array(ids, np.int64) for ids in ended]


def _sample_evenly(windows: list[TokenArray], budget: int) -> tuple[TokenArray, ...]:
    """Return evenly spread windows, with about `budget` predictions in total."""
    total = sum(len(window) - 1 for window in windows)
    kept: list[TokenArray] = []
    seen = selected = 0
    for window in windows:
        if total <= budget or selected * total <= seen * budget:
            kept.append(window)
            selected += len(window) - 1
        seen += len(window) - 1
    return tuple(kept)
