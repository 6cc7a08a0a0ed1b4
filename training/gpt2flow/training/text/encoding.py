"""Documents as token ids, and which of them the model learns to predict."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from gpt2flow.agent.flows.prompt import ACT, END, RESULT
from gpt2flow.training.text.clean import is_flow_document

_Item = TypeVar("_Item")
_CHUNK = 1000


@dataclass(frozen=True)
class EncodedCorpus:
    """All documents, one after the other, each ended by `<|endoftext|>`.

    Attributes:
        ids: token ids, int32 [tokens].
        matters: whether a token belongs to an action or to ordinary text, and
            not to what an agent's turn only reads, bool [tokens].
        starts: where each document starts, and where the last one ends,
            int64 [documents + 1].
        end_id: the id of `<|endoftext|>`.
    """

    ids: npt.NDArray[np.int32]
    matters: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int64]
    end_id: int

    def __len__(self) -> int:
        return len(self.starts) - 1


def encode(documents: Iterable[str], tokenizer: Tokenizer) -> EncodedCorpus:
    """Encode cleaned documents."""
    end, act, result = (tokenizer.token_to_id(t) for t in (END, ACT, RESULT))
    ids: list[npt.NDArray[np.int32]] = []
    matters: list[npt.NDArray[np.bool_]] = []
    for chunk in _chunks(documents):
        for document, encoding in zip(chunk, tokenizer.encode_batch(chunk), strict=True):
            row = np.array([*encoding.ids, end], dtype=np.int32)
            ids.append(row)
            is_flow = is_flow_document(document)
            matters.append(_in_action(row, act, (result, end)) if is_flow else row >= 0)
    starts = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    empty = np.zeros(0, np.int32)
    return EncodedCorpus(
        np.concatenate([empty, *ids]), np.concatenate([empty < 0, *matters]), starts, end
    )


def _in_action(
    row: npt.NDArray[np.int32], act: int, closing: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Mark what stands between `<|act|>` and the token that closes it, inclusive."""
    closes = np.isin(row, closing)
    # Counted before each token, so that `<|act|>` itself stays out.
    opened = np.cumsum(row == act) - (row == act)
    closed: npt.NDArray[np.int64] = np.cumsum(closes) - closes
    inside: npt.NDArray[np.bool_] = opened > closed
    return inside


def _chunks(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
