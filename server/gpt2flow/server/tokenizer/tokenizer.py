"""Tokenizer of a model."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, takewhile
from pathlib import Path
from typing import Any, NamedTuple, Self

from tokenizers import AddedToken, Encoding
from tokenizers import Tokenizer as HfTokenizer

from gpt2flow.server.bundle.decoder import Decoder, read_decoder
from gpt2flow.server.tokenizer.detokenization import ByteDetokenizer, Detokenizer, PieceDetokenizer
from gpt2flow.server.tokenizer.text_stream import TextStream
from gpt2flow.server.tokenizer.variants import make_variant


@dataclass(frozen=True, slots=True)
class Token:
    """Token and the bytes [start, end) of UTF-8 that it represents."""

    id: int
    piece: bytes
    start: int
    end: int


class _Span(NamedTuple):
    """Token id and the characters [start, end) that it represents.

    Attributes:
        added: Whether the tokenizer put the token around the text.
    """

    id: int
    start: int
    end: int
    added: bool


class Tokenizer:
    """Tokenizer of a model, for any thread.

    Attributes:
        kind: Its kind, such as "byte-level BPE".
        special_ids: Ids of special tokens.
        has_all_bytes: Whether each byte has a token, so that tokens can write any text.
        around: Numbers of special tokens that it puts before and after a text.
    """

    def __init__(self, content: bytes) -> None:
        """Parse the content of a `tokenizer.json`.

        Raises:
            ValueError: The content is invalid, or its decoder is of an unsupported kind.
        """
        try:
            self._tokenizer = HfTokenizer.from_buffer(content)
        except Exception as error:  # The library raises bare Exception.
            raise ValueError(f"not a tokenizer: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._variants = {(False, False): self._tokenizer}
        added: dict[int, AddedToken] = self._tokenizer.get_added_tokens_decoder()
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self._contents = {token_id: added[token_id].content for token_id in self.special_ids}
        self._around = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self._decoder = decoder = read_decoder(self._tokenizer)
        self._hidden = self.special_ids | decoder.unused
        self._visible = [
            b"" if token_id in self._hidden else piece
            for token_id, piece in enumerate(decoder.pieces)
        ]
        self.has_all_bytes = {bytes([byte]) for byte in range(256)} <= set(decoder.pieces)
        self._longest = max(map(len, decoder.pieces)) if self._keeps_all_bytes(added) else None
        spans = _spans(self._tokenizer.encode("a"))
        before = sum(1 for _ in takewhile(lambda span: span.added, spans))
        self.around = (before, self._around - before)
        self.kind = _kind(type(self._tokenizer.model).__name__, decoder)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a `tokenizer.json`; raises as the constructor does."""
        return cls(path.read_bytes())

    @property
    def vocabulary_size(self) -> int:
        """Highest token id plus one."""
        return len(self._decoder.pieces)

    @property
    def bounds_tokens(self) -> bool:
        """Whether the size of a text bounds its tokens; see `least_tokens`."""
        return self._longest is not None

    @property
    def unused_ids(self) -> frozenset[int]:
        """Ids below the vocabulary size without a token."""
        return self._decoder.unused

    @property
    def pieces(self) -> Sequence[bytes]:
        """Bytes of every token within a text, by id; some are unused."""
        return self._decoder.pieces

    @property
    def constraint_error(self) -> str:
        """Reason why no grammar can constrain its text; empty if grammars can."""
        if not self._decoder.spacing:
            return ""
        return (
            f"a {self.kind} tokenizer writes spaces that belong to no token, so that no grammar "
            "can admit or exclude them"
        )

    def encode(
        self,
        text: str,
        *,
        literal: bool = False,
        add_special_tokens: bool = False,
        continuing: bool = False,
    ) -> list[int]:
        """Return the ids of a text.

        Args:
            text: The text.
            literal: Whether special tokens written out in the text are ordinary text.
            add_special_tokens: Whether to add those that the tokenizer puts around a text.
            continuing: Whether the text continues another one, so that nothing is around it.
        """
        variant = self._variant(literal=literal, continuing=continuing)
        # A batch of one: only for batches does the library release the interpreter lock.
        [encoding] = variant.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        ids: list[int] = encoding.ids
        added = self._around if add_special_tokens and not continuing else 0
        if literal and sum(token_id in self.special_ids for token_id in ids) > added:
            # Only this way of encoding tells places.
            [encoding] = variant.encode_batch([text], add_special_tokens=add_special_tokens)
            spans = self._literal_spans(text, _spans(encoding), variant)
            return [span.id for span in spans]
        return ids

    def encode_short(self, text: str) -> list[int]:
        """Encode a short literal text that continues another one.

        It does not release the interpreter lock: regaining it would take longer than encoding.
        """
        variant = self._variant(literal=True, continuing=True)
        ids: list[int] = variant.encode(text, add_special_tokens=False).ids
        return ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode literal texts that continue others, on all cores.

        Special tokens may be among the ids, where their names are written out.
        """
        variant = self._variant(literal=True, continuing=True)
        return [each.ids for each in variant.encode_batch_fast(texts, add_special_tokens=False)]

    def least_tokens(self, text: str, *, add_special_tokens: bool = False) -> int:
        """Return a lower bound of a text's tokens, from its size.

        It is 0 if the tokenizer may change or drop bytes.

        Args:
            text: The text.
            add_special_tokens: As in `encode`.
        """
        if self._longest is None:
            return 0
        least = -(-len(text.encode()) // self._longest)
        return least + self._around if add_special_tokens else least

    def piece(self, token_id: int) -> bytes:
        """Return the bytes of a token within a text, if used."""
        pieces = self._decoder.pieces
        return pieces[token_id] if token_id < len(pieces) else b""

    def decode(self, token_ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of tokens; invalid UTF-8 becomes U+FFFD."""
        if not self._decoder.byte_level:
            text: str = self._tokenizer.decode(
                list(token_ids), skip_special_tokens=skip_special_tokens
            )
            return text
        pieces = self._visible if skip_special_tokens else self._decoder.pieces
        used = (pieces[each] for each in token_ids if each < len(pieces))
        return b"".join(used).decode("utf-8", errors="replace")

    def stream(
        self,
        stop_strings: Sequence[str] = (),
        *,
        skip_special_tokens: bool = True,
        before: Sequence[int] | None = None,
    ) -> TextStream:
        """Return the text of a sequence that grows token by token.

        Args:
            stop_strings: Strings that end the text.
            skip_special_tokens: Whether special tokens write nothing.
            before: Tokens of a text that is continued; None starts one.
        """
        detokenizer: Detokenizer
        if self._decoder.byte_level:
            pieces = self._visible if skip_special_tokens else self._decoder.pieces
            detokenizer = ByteDetokenizer(pieces)
        else:
            hidden = self._hidden if skip_special_tokens else self._decoder.unused
            detokenizer = PieceDetokenizer(self._decoder, hidden, before)
        return TextStream(detokenizer, stop_strings)

    def tokenize(
        self, text: str, *, literal: bool = False, add_special_tokens: bool = False
    ) -> list[Token]:
        """Return the tokens of a text with their byte ranges; see `encode`."""
        return list(self.iter_tokens(text, literal=literal, add_special_tokens=add_special_tokens))

    def iter_tokens(
        self, text: str, *, literal: bool = False, add_special_tokens: bool = False
    ) -> Iterator[Token]:
        """Yield the tokens of a text with their byte ranges; see `encode`.

        A list of many of them would make the garbage collector stop all threads.
        """
        variant = self._variant(literal=literal, continuing=False)
        [encoding] = variant.encode_batch([text], add_special_tokens=add_special_tokens)
        pieces = [
            b"" if added else self.piece(token_id)
            for token_id, added in zip(encoding.ids, encoding.special_tokens_mask, strict=True)
        ]
        exact = b"".join(pieces) == text.encode()
        if exact and not (literal and not self.special_ids.isdisjoint(encoding.ids)):
            return self._consecutive(encoding.ids, pieces)
        # The tokenizer changed the text: only the library's offsets are left, in characters.
        spans = _spans(encoding)
        if literal:
            spans = self._literal_spans(text, spans, variant)
        starts = list(accumulate((len(character.encode()) for character in text), initial=0))
        return self._located(spans, starts)

    def _variant(self, *, literal: bool, continuing: bool) -> HfTokenizer:
        key = (literal, continuing)
        if key not in self._variants:
            self._variants[key] = make_variant(
                self._tokenizer, literal=literal, continuing=continuing
            )
        return self._variants[key]

    def _consecutive(self, ids: Sequence[int], pieces: Sequence[bytes]) -> Iterator[Token]:
        """Yield tokens one after the other.

        Args:
            ids: Their ids.
            pieces: What each represents of the text; nothing if it was put around the text.
        """
        start = 0
        for token_id, piece in zip(ids, pieces, strict=True):
            end = start + len(piece)
            yield Token(token_id, piece or self.piece(token_id), start, end)
            start = end

    def _located(self, spans: Sequence[_Span], starts: Sequence[int]) -> Iterator[Token]:
        """Yield tokens at the spans' own places.

        Args:
            spans: The tokens in order.
            starts: First byte of each character, and the end of the text.
        """
        end = 0
        for span in spans:
            start = end if span.added else starts[span.start]
            end = end if span.added else starts[span.end]
            yield Token(span.id, self.piece(span.id), start, end)

    def _literal_spans(self, text: str, spans: list[_Span], variant: HfTokenizer) -> list[_Span]:
        """Return spans in which special tokens written out are ordinary ones.

        Where special tokens are also among the tokens of ordinary text, as in a Unigram model, the
        library finds them there. The text is then cut within them; one of a single character is
        left out.

        Args:
            text: The text.
            spans: Its tokens.
            variant: Tokenizer that they are from.
        """
        inside = {cut for span in spans for cut in self._cuts(text, span)} - {0, len(text)}
        if not inside:
            return [span for span in spans if not list(self._cuts(text, span))]
        edges = list(pairwise([0, *sorted(inside), len(text)]))
        parts = [text[start:end] for start, end in edges]
        continuing = self._variant(literal=True, continuing=True)
        variants = [variant, *[continuing] * (len(parts) - 1)]
        encoded = (
            *variant.encode_batch(parts[:1], add_special_tokens=False),
            *continuing.encode_batch(parts[1:], add_special_tokens=False),
        )
        before = list(takewhile(lambda span: span.added, spans))
        after = [span for span in spans[len(before) :] if span.added]
        ordinary = [
            span._replace(start=span.start + start, end=span.end + start)
            for (start, _), part, found, each in zip(edges, parts, encoded, variants, strict=True)
            for span in self._literal_spans(part, _spans(found), each)
        ]
        return [*before, *ordinary, *after]

    def _cuts(self, text: str, span: _Span) -> Iterator[int]:
        """Yield where to cut a special token that is written out."""
        if span.added or span.id not in self._contents:
            return
        content, written = self._contents[span.id], text[span.start : span.end]
        normalizer = self._tokenizer.normalizer
        at = written.find(content)
        # The special token of unknown characters is written out only if its own name is.
        if at < 0 and (normalizer is None or content not in normalizer.normalize_str(written)):
            return
        start = span.start + max(at, 0)
        yield start + 1
        if len(written) == 1:
            yield start

    def _keeps_all_bytes(self, added: Mapping[int, AddedToken]) -> bool:
        """Return whether encoding neither changes nor drops a byte of a text."""
        return (
            self._decoder.byte_level
            and self._tokenizer.normalizer is None
            and not any(token.lstrip or token.rstrip for token in added.values())
            and self.has_all_bytes
            and (splitter := self._tokenizer.pre_tokenizer) is not None
            and _splits_only(json.loads(splitter.__getstate__()))
        )


def _spans(encoding: Encoding) -> list[_Span]:
    rows = zip(encoding.ids, encoding.offsets, encoding.special_tokens_mask, strict=True)
    return [_Span(token_id, start, end, bool(added)) for token_id, (start, end), added in rows]


def _kind(model: str, decoder: Decoder) -> str:
    """Return the name of a kind of tokenizer.

    Args:
        model: Name of the class of its model.
        decoder: Its decoder.
    """
    if decoder.byte_level:
        return f"byte-level {model}"
    if decoder.byte_values:
        return f"{model} with byte fallback"
    return "Metaspace BPE" if model == "BPE" and not decoder.spacing else model


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
