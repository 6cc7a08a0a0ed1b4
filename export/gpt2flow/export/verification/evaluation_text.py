"""The text that quality is measured on, cut into windows of tokens."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from tokenizers import Tokenizer

from gpt2flow.export.arrays import TokenArray
from gpt2flow.export.errors import EvaluationTextError, one_line

DOCUMENT_END: Final = "<|endoftext|>"
# Enough to tell a ratio of perplexities to some tenths of a percent, in seconds.
TOKEN_BUDGET: Final = 4000


@dataclass(frozen=True, slots=True)
class EvaluationText:
    """Windows of one text, none longer than the context of the model.

    Attributes:
        name: The name of the file and the hash of what it holds.
        windows: int64 [tokens] each, at least two; all but the first token are predicted.
    """

    name: str
    windows: tuple[TokenArray, ...]

    @property
    def predictions(self) -> int:
        """How many tokens are predicted in all windows."""
        return sum(len(window) - 1 for window in self.windows)


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """The tokens of one text.

    Attributes:
        name: The name of the file and the hash of what it holds.
        documents: int64 [tokens] each, at least two; there is at least one.
    """

    name: str
    documents: list[TokenArray]

    def windows(self, length: int, budget: int = TOKEN_BUDGET) -> EvaluationText:
        """Cut the text into windows.

        Args:
            length: The most tokens of a window.
            budget: Of a text with more predictions, windows spread evenly over it are taken.
        """
        windows = [
            tokens[start : start + length]
            for tokens in self.documents
            for start in range(0, len(tokens), length)
        ]
        return EvaluationText(
            self.name, _spread([window for window in windows if len(window) > 1], budget)
        )


def read_text(path: Path, tokenizer: Tokenizer) -> TokenizedText:
    """Read a text of one or several documents, each ended by `<|endoftext|>`.

    Raises:
        EvaluationTextError: The file cannot be read, or holds nothing to predict.
    """
    try:
        content = path.read_bytes()
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationTextError(f"{path} cannot be read as text: {one_line(error)}") from error
    documents = [tokens for tokens in _documents(text, tokenizer) if len(tokens) > 1]
    if not documents:
        raise EvaluationTextError(f"{path} holds less than two tokens; there is nothing to predict")
    return TokenizedText(f"{path.name} sha256:{hashlib.sha256(content).hexdigest()}", documents)


def _documents(text: str, tokenizer: Tokenizer) -> list[TokenArray]:
    """Return the tokens of each document, the one that ends it included if there is one."""
    end = [tokenizer.token_to_id(DOCUMENT_END)]
    parts = [part.strip("\r\n") for part in text.split(DOCUMENT_END)]
    tokenizer.no_truncation()
    tokenizer.no_padding()
    encodings = tokenizer.encode_batch(parts, add_special_tokens=False)
    ended = [
        encoding.ids + (end if end[0] is not None and number < len(parts) - 1 else [])
        for number, encoding in enumerate(encodings)
    ]
    return [np.array(ids, np.int64) for ids in ended]


def _spread(windows: list[TokenArray], budget: int) -> tuple[TokenArray, ...]:
    """Keep windows so that those kept stay in proportion to those seen."""
    total = sum(len(window) - 1 for window in windows)
    kept: list[TokenArray] = []
    seen = taken = 0
    for window in windows:
        if total <= budget or taken * total <= seen * budget:
            kept.append(window)
            taken += len(window) - 1
        seen += len(window) - 1
    return tuple(kept)
