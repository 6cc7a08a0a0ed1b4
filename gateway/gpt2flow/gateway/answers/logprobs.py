"""Log-probabilities in both of OpenAI's forms."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gpt2flow.client import TokenLogprob

# Replacement of bytes that are no UTF-8.
_REPLACEMENT: Final = "\ufffd".encode()
# OpenAI's value of a token that is next to impossible; JSON has no infinity.
_LEAST: Final = -9999.0


def chat_logprobs(positions: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Return log-probabilities as chat completions have them."""
    return [
        {**_chat_token(each), "top_logprobs": [_chat_token(other) for other in each.top]}
        for each in positions
    ]


def _chat_token(token: TokenLogprob) -> dict[str, Any]:
    return {
        "token": token.token.decode("utf-8", "replace"),
        "logprob": _finite(token.logprob),
        "bytes": list(token.token),
    }


@dataclass
class TokenOffsets:
    """Positions of tokens in a text that may grow.

    Tokens that the text leaves out, such as special tokens, have the position of the next one.

    Attributes:
        position: Characters before the text.
    """

    position: int
    _pending: bytes = b""
    _unseen: list[bytes] = field(default_factory=list)

    def add(self, tokens: Sequence[bytes], text: str) -> list[int]:
        """Return the position of each token.

        Args:
            tokens: Next tokens.
            text: Next piece of the text, which may end before or after the tokens.
        """
        self._pending += text.encode()
        waiting = len(self._unseen)
        self._unseen += tokens
        offsets = []
        while self._unseen and (size := self._match(self._unseen[0])) is not None:
            token = self._unseen.pop(0)
            offsets.append(self._offset_of(token))
            self._consume(size)
        # The text of these comes later.
        ahead = self.position
        for token in self._unseen:
            offsets.append(ahead)
            ahead += _characters(token)
        return offsets[waiting:]

    def _match(self, token: bytes) -> int | None:
        """Return the bytes that a token takes; None if undecided."""
        if self._pending.startswith(token):
            return len(token)
        if token.startswith(self._pending):
            return None
        if self._pending.startswith(_REPLACEMENT) and not _is_text(token):
            return len(_REPLACEMENT)
        return 0

    def _offset_of(self, token: bytes) -> int:
        # A token may start within a character.
        return self.position - (token[:1] != b"" and _is_continuation(token[0]))

    def _consume(self, size: int) -> None:
        self.position += _characters(self._pending[:size])
        self._pending = self._pending[size:]


def _is_text(token: bytes) -> bool:
    try:
        token.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_continuation(byte: int) -> bool:
    return byte & 0xC0 == 0x80


def _characters(text: bytes) -> int:
    """Return the number of characters that start in some bytes."""
    return sum(not _is_continuation(byte) for byte in text)


def completion_logprobs(
    positions: Sequence[TokenLogprob], text: str, offsets: TokenOffsets
) -> dict[str, Any]:
    """Return log-probabilities as completions have them.

    Args:
        positions: Tokens of the text.
        text: Text, or its next piece.
        offsets: Positions of the tokens so far.
    """
    has_top = any(each.top for each in positions)
    return {
        "tokens": [_name(each.token) for each in positions],
        "token_logprobs": [_finite(each.logprob) for each in positions],
        "top_logprobs": [_top(each) for each in positions] if has_top else None,
        "text_offset": offsets.add([each.token for each in positions], text),
    }


def _top(position: TokenLogprob) -> dict[str, float | None] | None:
    """Return likeliest and chosen tokens; None where nothing was predicted."""
    if position.logprob is None:
        return None
    top = {_name(each.token): _finite(each.logprob) for each in position.top}
    top.setdefault(_name(position.token), _finite(position.logprob))
    return top


def _finite(logprob: float | None) -> float | None:
    return None if logprob is None else max(logprob, _LEAST)


def _name(token: bytes) -> str:
    r"""Return a token as text; parts of characters as `bytes:\xe4\xbd`."""
    if _is_text(token):
        return token.decode()
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)
