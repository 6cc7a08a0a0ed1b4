"""Byte-level tokenizer, and incremental detokenization with stop strings."""

import codecs
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tokenizers import AddedToken, decoders
from tokenizers import Tokenizer as HfTokenizer


@dataclass(frozen=True, slots=True)
class Token:
    """Token and the bytes [start, end) of UTF-8 that it represents."""

    id: int
    piece: bytes
    start: int
    end: int


class Tokenizer:
    """Byte-level BPE tokenizer: every token is a sequence of bytes.

    Attributes:
        json: Content of the file, for libraries that parse it themselves.
        special_ids: Ids of special tokens, which represent no text.
    """

    def __init__(self, content: bytes) -> None:
        """Parse the content of a `tokenizer.json`.

        Raises:
            ValueError: The content is invalid, or not a byte-level tokenizer.
        """
        try:
            self._tokenizer = HfTokenizer.from_buffer(content)
        except Exception as error:  # The library raises bare Exception.
            raise ValueError(f"not a tokenizer: {error}") from error
        if not isinstance(self._tokenizer.decoder, decoders.ByteLevel):
            raise ValueError("not a byte-level tokenizer: wrong decoder")  # noqa: TRY004
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.json = content
        added: dict[int, AddedToken] = self._tokenizer.get_added_tokens_decoder()
        self.special_ids = [token_id for token_id, token in added.items() if token.special]
        self._pieces = _pieces(self._tokenizer, added)
        self._longest = max(map(len, self._pieces)) if self._keeps_all_bytes(added) else None

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a `tokenizer.json`; raises as the constructor does."""
        return cls(path.read_bytes())

    @property
    def vocabulary_size(self) -> int:
        """Highest token id plus one."""
        return len(self._pieces)

    @property
    def pieces(self) -> Sequence[bytes]:
        """Bytes of every token by id; empty for unused ids."""
        return self._pieces

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; special tokens in it are recognized."""
        # A batch of one: only for batches does the library release the interpreter lock.
        [encoding] = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        ids: list[int] = encoding.ids
        return ids

    def encode_short(self, text: str) -> list[int]:
        """Encode a short text without releasing the interpreter lock.

        For a short text, regaining the lock would take longer than encoding.
        """
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def least_tokens(self, text: str) -> int:
        """Return a lower bound of a text's tokens, from its size.

        It is 0 if the tokenizer may change or drop bytes.
        """
        if self._longest is None:
            return 0
        return -(-len(text.encode()) // self._longest)

    def piece(self, token_id: int) -> bytes:
        """Return the bytes of one token; empty for unused ids."""
        return self._pieces[token_id] if token_id < len(self._pieces) else b""

    def decode(self, token_ids: Iterable[int]) -> str:
        """Return the text of tokens; invalid UTF-8 becomes U+FFFD."""
        return b"".join(map(self.piece, token_ids)).decode("utf-8", errors="replace")

    def tokenize(self, text: str) -> list[Token]:
        """Return the tokens of a text with their byte ranges."""
        [encoding] = self._tokenizer.encode_batch([text], add_special_tokens=False)
        pieces = [self.piece(token_id) for token_id in encoding.ids]
        if b"".join(pieces) == text.encode():
            return list(_consecutive(encoding.ids, pieces))
        # A normalizer changed the text: only the library's offsets are left, in characters.
        starts = [0]
        for character in text:
            starts.append(starts[-1] + len(character.encode()))
        return [
            Token(token_id, piece, starts[start], starts[end])
            for token_id, piece, (start, end) in zip(
                encoding.ids, pieces, encoding.offsets, strict=True
            )
        ]

    def _keeps_all_bytes(self, added: Mapping[int, AddedToken]) -> bool:
        """Return whether encoding neither changes nor drops a byte of a text."""
        return (
            self._tokenizer.normalizer is None
            and not any(token.lstrip or token.rstrip for token in added.values())
            and {bytes([byte]) for byte in range(256)} <= set(self._pieces)
            and (splitter := self._tokenizer.pre_tokenizer) is not None
            and _splits_only(json.loads(splitter.__getstate__()))
        )


class TextStream:
    """Incremental detokenizer of one sequence, which finds stop strings.

    It holds incomplete characters back, and text that may be the start of a stop string.

    Attributes:
        stop_string: Stop string that ended the text; empty before.
    """

    __slots__ = ("_decoder", "_held", "_stop_strings", "stop_string")

    def __init__(self, stop_strings: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop_strings = stop_strings
        self._held = ""
        self.stop_string = ""

    def push(self, piece: bytes, *, check_stops: bool = True) -> str:
        """Append bytes, and return the text that they complete.

        A complete stop string sets `stop_string`; the returned text, which ends before it, is
        then the last.

        Args:
            piece: Bytes of a token.
            check_stops: Whether a stop string may end the text.
        """
        text = self._decoder.decode(piece)
        if not self._stop_strings:
            return text
        text = self._held + text
        if check_stops and (found := _first_stop(text, self._stop_strings)):
            at, self.stop_string = found
            self._held = ""
            return text[:at]
        keep = _longest_start(text, self._stop_strings)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """Return the remaining text, at the end of the sequence."""
        if self.stop_string:
            return ""
        return self._held + self._decoder.decode(b"", final=True)

    def fork(self) -> "TextStream":
        """Return an independent stream in the same state."""
        twin = TextStream(self._stop_strings)
        twin._decoder.setstate(self._decoder.getstate())
        twin._held = self._held
        twin.stop_string = self.stop_string
        return twin


def _first_stop(text: str, stop_strings: Sequence[str]) -> tuple[int, str] | None:
    """Find the first stop string; of several at one position, the longest."""
    found = [(at, -len(stop), stop) for stop in stop_strings if (at := text.find(stop)) >= 0]
    if not found:
        return None
    at, _, stop = min(found)
    return at, stop


def _longest_start(text: str, stop_strings: Sequence[str]) -> int:
    """Return the length of the longest suffix that starts a stop string."""
    return max(
        next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
        for stop in stop_strings
    )


def _consecutive(ids: Sequence[int], pieces: Sequence[bytes]) -> Iterable[Token]:
    start = 0
    for token_id, piece in zip(ids, pieces, strict=True):
        yield Token(token_id, piece, start, start + len(piece))
        start += len(piece)


def _pieces(tokenizer: HfTokenizer, added: Mapping[int, AddedToken]) -> list[bytes]:
    """Return the bytes of every token, by id."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    byte_of = _byte_of_character()
    pieces = [b""] * (max(vocabulary.values()) + 1)
    for token, token_id in vocabulary.items():
        if token_id in added:
            pieces[token_id] = added[token_id].content.encode()
        elif all(character in byte_of for character in token):
            pieces[token_id] = bytes(byte_of[character] for character in token)
        else:
            raise ValueError(f"not a byte-level tokenizer: token {token_id} is {token!r}")
    return pieces


def _splits_only(pre_tokenizer: Mapping[str, Any]) -> bool:
    """Return whether a pre-tokenizer splits a text without dropping anything."""
    match pre_tokenizer:
        case {"type": "ByteLevel"}:
            return True
        case {"type": "Sequence", "pretokenizers": [*before, {"type": "ByteLevel"}]}:
            kinds = {"Split", "Punctuation", "Digits"}
            return all(
                each["type"] in kinds and each.get("behavior") != "Removed" for each in before
            )
    return False


def _byte_of_character() -> dict[str, int]:
    """Return the byte of each character in GPT-2's encoding of bytes.

    Printable bytes are encoded as themselves; the others, in order, from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    code = {chr(byte): byte for byte in printable}
    code.update((chr(0x100 + i), byte) for i, byte in enumerate(others))
    return code
