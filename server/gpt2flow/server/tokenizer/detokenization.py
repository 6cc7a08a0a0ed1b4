"""Incremental detokenization: the text of a growing sequence of tokens.

The texts that `push` and `finish` return are, joined, what the decoder writes for all tokens at
once.
"""

import codecs
import copy
from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import Final, Protocol, Self

from gpt2flow.server.bundle.decoder import Decoder

# Written for bytes that are no text.
REPLACEMENT: Final = "\ufffd"


class Detokenizer(Protocol):
    """Detokenizer of one sequence."""

    @property
    def pending(self) -> str:
        """Text that is returned later, unless further tokens change it."""

    def push(self, token_id: int) -> str:
        """Append a token, and return the text that is final."""

    def finish(self) -> str:
        """Return the remaining text, at the end of the sequence."""

    def fork(self) -> Self:
        """Return an independent detokenizer in the same state."""


class ByteDetokenizer:
    """Detokenizer of byte-level tokens, which holds incomplete characters back.

    Attributes:
        pending: Nothing: an incomplete character is no text.
    """

    __slots__ = ("_pieces", "_utf8")
    # Not a property, which each token would call.
    pending = ""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        """Start without tokens.

        Args:
            pieces: Bytes of each token, by id.
        """
        self._pieces = pieces
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Append a token, and return the characters that it completes."""
        piece = self._pieces[token_id] if token_id < len(self._pieces) else b""
        return self._utf8.decode(piece)

    def finish(self) -> str:
        """Return U+FFFD if the last character is incomplete."""
        return self._utf8.decode(b"", final=True)

    def fork(self) -> "ByteDetokenizer":
        """Return an independent detokenizer in the same state."""
        twin = ByteDetokenizer(self._pieces)
        twin._utf8.setstate(self._utf8.getstate())
        return twin


class PieceDetokenizer:
    """Detokenizer of tokens that are whole characters, or single bytes.

    A run of single bytes is held back until another token ends it: if the whole run is not valid
    UTF-8, each of its bytes is written as U+FFFD.
    """

    __slots__ = ("_decoder", "_hidden", "_if_followed", "_if_last", "_run", "_started", "_to_strip")

    def __init__(
        self, decoder: Decoder, hidden: Collection[int], before: Sequence[int] | None
    ) -> None:
        """Start without tokens.

        Args:
            decoder: What each token writes.
            hidden: Ids of tokens that write nothing.
            before: Tokens of a text that is continued; None starts one.
        """
        self._decoder = decoder
        self._hidden = hidden
        self._started = before is not None
        self._to_strip = 0 if self._started else decoder.strip_count
        self._run = b""
        # The end of the last token, where that depends on whether another one follows.
        self._if_followed = self._if_last = ""
        if before and decoder.lasts is not decoder.pieces:
            shown = (each for each in reversed(before) if not self._is_hidden(each))
            if (last := next(shown, None)) is not None:
                self._split_end(last, decoder.pieces[last].decode())
                self._if_last = ""

    @property
    def pending(self) -> str:
        """Text that `finish` would return, unless it is invalid."""
        text = _run_text(self._run)
        return self._if_last if text is None else self._strip(text)[0] + self._if_last

    def push(self, token_id: int) -> str:
        """Append a token, and return the text that is final."""
        decoder = self._decoder
        if self._is_hidden(token_id):
            return ""
        piece = (decoder.pieces if self._started else decoder.firsts)[token_id]
        text, self._if_followed, self._if_last = self._if_followed, "", ""
        self._started = True
        if token_id in decoder.byte_values:
            self._run += piece
            return text
        if self._run:
            text += self._end_run()
        new = piece.decode()
        if decoder.lasts is not decoder.pieces:
            new = self._split_end(token_id, new)
        if self._to_strip:
            new, self._to_strip = self._strip(new)
        return text + new

    def finish(self) -> str:
        """Return the remaining text, at the end of the sequence."""
        text = self._end_run() + self._if_last
        self._if_last = ""
        return text

    def fork(self) -> "PieceDetokenizer":
        """Return an independent detokenizer in the same state."""
        return copy.copy(self)

    def _is_hidden(self, token_id: int) -> bool:
        return token_id in self._hidden or token_id >= len(self._decoder.pieces)

    def _split_end(self, token_id: int, text: str) -> str:
        """Split the end off a token that depends on the next one."""
        last = self._decoder.lasts[token_id].decode()
        pairs = zip(text, last, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        self._if_followed, self._if_last = text[same:], last[same:]
        return text[:same]

    def _end_run(self) -> str:
        text = _run_text(self._run)
        if text is None:
            text = REPLACEMENT * len(self._run)
        self._run = b""
        text, self._to_strip = self._strip(text)
        return text

    def _strip(self, text: str) -> tuple[str, int]:
        """Return a stripped text, and how much is left to strip."""
        left = self._to_strip
        while left and text.startswith(self._decoder.stripped):
            text, left = text[1:], left - 1
        return text, 0 if text else left


def _run_text(run: bytes) -> str | None:
    """Return the text of a run of bytes, None if invalid."""
    try:
        return run.decode()
    except UnicodeDecodeError:
        return None
