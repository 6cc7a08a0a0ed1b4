"""Decoder of a `tokenizer.json`, as a table of what each token writes.

Export and server share it, so that what is exported is what the server decodes.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tokenizers import AddedToken, decoders
from tokenizers import Tokenizer as HfTokenizer

_SUPPORTED: Final = "ByteLevel, WordPiece, Metaspace, BPEDecoder and ByteFallback"
# Decoders that write a token without regard to others, except for its place in the text.
_PER_TOKEN: Final = {"Replace", "Strip", "Metaspace", "WordPiece", "BPEDecoder"}
# Decoders that write the first token of a text differently, or spaces that belong to no token.
_FIRST: Final = {"Metaspace", "WordPiece"}
_SPACING: Final = {"WordPiece", "BPEDecoder"}
_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")

Stage = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decoder:
    """Table of the bytes that each token writes.

    Attributes:
        pieces: Bytes of each token between others; empty for unused ids.
        firsts: Bytes of each token at the start of a text.
        lasts: Bytes of each token at the end of a text.
        unused: Ids without a token.
        byte_level: Whether any token may be a part of a character.
        byte_values: Values of the tokens that stand for one byte each, if others are characters.
        stripped: Character that is removed from the start of a text; empty for none.
        strip_count: Most of these characters that are removed.
        spacing: Whether the decoder writes spaces that belong to no token.
    """

    pieces: Sequence[bytes]
    firsts: Sequence[bytes]
    lasts: Sequence[bytes]
    unused: frozenset[int]
    byte_level: bool = False
    byte_values: Mapping[int, int] = field(default_factory=dict)
    stripped: str = ""
    strip_count: int = 0
    spacing: bool = False


def read_decoder(tokenizer: HfTokenizer) -> Decoder:
    """Return the decoder of a tokenizer.

    Raises:
        ValueError: It has no tokens, or a decoder of another kind.
    """
    tokens = _tokens(tokenizer)
    stages = _stages(tokenizer.decoder)
    unused = frozenset(token_id for token_id, token in enumerate(tokens) if token is None)
    if [stage["type"] for stage in stages] == ["ByteLevel"]:
        pieces = _byte_level_pieces(tokens, tokenizer.get_added_tokens_decoder())
        return Decoder(pieces, pieces, pieces, unused, byte_level=True)
    per_token, fallback, strip = _split(stages)
    pieces, firsts, lasts = _pieces(tokens, per_token, joined=not stages)
    values = _byte_values(pieces) if fallback else {}
    for table in (pieces, firsts, lasts):
        for token_id, value in values.items():
            table[token_id] = bytes([value])
    return Decoder(
        pieces,
        firsts,
        lasts,
        unused,
        byte_values=values,
        stripped=strip["content"] if strip else "",
        strip_count=strip["start"] if strip else 0,
        spacing=not stages or any(stage["type"] in _SPACING for stage in per_token),
    )


def component(kind: str, state: Stage | None) -> Any:
    """Return a part of a tokenizer from its entry in a `tokenizer.json`.

    Args:
        kind: Name of the part, such as `decoder`.
        state: Its entry.
    """
    model = {"type": "WordLevel", "vocab": {}, "unk_token": ""}
    tokenizer = HfTokenizer.from_str(json.dumps({"version": "1.0", "model": model, kind: state}))
    return getattr(tokenizer, kind)


def _tokens(tokenizer: HfTokenizer) -> list[str | None]:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    tokens: list[str | None] = [None] * (max(vocabulary.values(), default=-1) + 1)
    for token, token_id in vocabulary.items():
        tokens[token_id] = token
    if not tokens:
        raise ValueError("it has no tokens")
    return tokens


def _stages(decoder: decoders.Decoder | None) -> list[Stage]:
    """Return the decoders that are applied one after the other."""

    def flat(state: Stage) -> list[Stage]:
        if state["type"] != "Sequence":
            return [state]
        return [stage for each in state["decoders"] for stage in flat(each)]

    return [] if decoder is None else flat(json.loads(decoder.__getstate__()))


def _split(stages: Sequence[Stage]) -> tuple[list[Stage], bool, Stage | None]:
    """Return the decoders of tokens, of bytes, and of the text.

    Raises:
        ValueError: Other decoders are among them, or another order.
    """
    per_token, rest = list[Stage](), list(stages)
    while rest and rest[0]["type"] in _PER_TOKEN:
        per_token.append(rest.pop(0))
    match [(stage["type"], stage.get("stop", 0)) for stage in rest]:
        case [] | [("Fuse", _)]:
            return per_token, False, None
        case [("ByteFallback", _)] | [("ByteFallback", _), ("Fuse", _)]:
            return per_token, True, None
        case [("Fuse", _), ("Strip", 0)]:
            return per_token, False, rest[-1]
        case [("ByteFallback", _), ("Fuse", _), ("Strip", 0)]:
            return per_token, True, rest[-1]
    names = " + ".join(stage["type"] for stage in stages)
    raise ValueError(f"its decoder is {names}; supported are {_SUPPORTED}")


def _pieces(
    tokens: Sequence[str | None], per_token: Sequence[Stage], *, joined: bool
) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Return each token as bytes, within a text and at its ends.

    Args:
        tokens: Tokens by id; None for unused ids.
        per_token: Decoders of single tokens.
        joined: Whether spaces join the tokens, for want of a decoder.
    """
    write: Callable[[list[str]], str] = " ".join if joined else "".join
    if per_token:
        write = component("decoder", {"type": "Sequence", "decoders": list(per_token)}).decode
    other = "a"
    before = write([other])
    after = write([other, other]).removeprefix(before)

    def table(write_token: Callable[[str], str]) -> list[bytes]:
        return [b"" if token is None else write_token(token).encode() for token in tokens]

    kinds = {stage["type"] for stage in per_token}
    pieces = table(
        lambda token: write([other, token, other]).removeprefix(before).removesuffix(after)
    )
    firsts, lasts = pieces, pieces
    if joined or kinds & _FIRST:
        firsts = table(lambda token: write([token, other]).removesuffix(after))
    if "BPEDecoder" in kinds:
        lasts = table(lambda token: write([other, token]).removeprefix(before))
    return pieces, firsts, lasts


def _byte_values(pieces: Sequence[bytes]) -> dict[int, int]:
    """Return the values of the tokens that stand for one byte each."""
    matches = ((i, _BYTE_TOKEN.fullmatch(piece.decode())) for i, piece in enumerate(pieces))
    return {token_id: int(match[1], 16) for token_id, match in matches if match}


def _byte_level_pieces(
    tokens: Sequence[str | None], added: Mapping[int, AddedToken]
) -> list[bytes]:
    byte_of = _byte_of_character()
    pieces = [b""] * len(tokens)
    for token_id, token in enumerate(tokens):
        if token is not None and token_id not in added:
            try:
                pieces[token_id] = token.translate(byte_of).encode("latin-1")
            except UnicodeEncodeError:
                # Tokens of other characters are written as they are, as by the library.
                pieces[token_id] = token.encode()
        elif token is not None:
            pieces[token_id] = token.encode()
    return pieces


def _byte_of_character() -> dict[int, int]:
    """Return the byte of each character in GPT-2's encoding of bytes.

    The keys are code points. Printable bytes are encoded as themselves; the others, in order, from
    U+0100 on. What is left of Latin-1 encodes nothing, and becomes U+FFFD, which is no byte.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    code = dict.fromkeys(others, 0xFFFD)
    code.update((0x100 + i, byte) for i, byte in enumerate(others))
    return code
