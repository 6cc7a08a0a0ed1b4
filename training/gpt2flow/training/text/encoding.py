"""Encoded documents: token ids and the mask of target tokens."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from gpt2flow.agent.flows.prompt import ACT, END, RESULT
from gpt2flow.training.errors import ConfigError
from gpt2flow.training.text.clean import is_flow_document

_Item = TypeVar("_Item")
_CHUNK = 1000
# No token has this id.
_ABSENT = -1


@dataclass(frozen=True)
class EncodedCorpus:
    """Concatenated documents, each terminated by `<|endoftext|>`.

    Attributes:
        ids: Token ids, int32 [tokens].
        target_mask: Tokens that the model has to generate, bool [tokens]: in a turn of the
            agent's flows those of the actions, in ordinary text all.
        starts: Offset of each document in `ids`, and the end of the last, int64 [documents + 1].
        end_id: Token id of `<|endoftext|>`.
    """

    ids: npt.NDArray[np.int32]
    target_mask: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int64]
    end_id: int

    def __len__(self) -> int:
        return len(self.starts) - 1


def encode(documents: Iterable[str], tokenizer: Tokenizer) -> EncodedCorpus:
    """Encode cleaned documents with a tokenizer of `train_vocabulary`.

    Raises:
        ConfigError: The tokenizer is another one, without the token that ends a document.
    """
    end, act, result = (_token_id(tokenizer, token) for token in (END, ACT, RESULT))
    if end == _ABSENT:
        raise ConfigError(f"the vocabulary lacks {END}, which ends every document")
    ids: list[npt.NDArray[np.int32]] = []
    masks: list[npt.NDArray[np.bool_]] = []
    for chunk in _chunks(documents):
        for document, encoding in zip(chunk, tokenizer.encode_batch(chunk), strict=True):
            row = np.array([*encoding.ids, end], dtype=np.int32)
            ids.append(row)
            is_flow = is_flow_document(document)
            masks.append(_mask_actions(row, act, (result, end)) if is_flow else row >= 0)
    starts = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    empty = np.zeros(0, np.int32)
    return EncodedCorpus(
        np.concatenate([empty, *ids]), np.concatenate([empty < 0, *masks]), starts, end
    )


def _token_id(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    return _ABSENT if found is None else found


def _mask_actions(
    row: npt.NDArray[np.int32], act: int, closing: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Mark the tokens from each `<|act|>`, exclusive, to its closing token, inclusive."""
    closes = np.isin(row, closing)
    # Both counts exclude the token itself, so that `<|act|>` is not marked and its closer is.
    opened = np.cumsum(row == act) - (row == act)
    closed: npt.NDArray[np.int64] = np.cumsum(closes) - closes
    inside: npt.NDArray[np.bool_] = opened > closed
    return inside


def _chunks(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
