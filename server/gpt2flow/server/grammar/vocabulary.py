"""Vocabulary of a grammar: each token as the bytes that it writes."""

from collections.abc import Iterator, Sequence
from functools import cached_property

from gpt2flow.server.tokenizer.tokenizer import Tokenizer


class GrammarVocabulary:
    """Adapter of a tokenizer to the interface of llguidance.

    llguidance needs an end-of-text token. A model without one gets an id after its last, which the
    model itself never produces.

    Attributes:
        tokens: Bytes of each token, by id.
        eos_token_ids: Ids of the end-of-text tokens, at least one.
        eos_token_id: The first of them.
        bos_token_id: None: a grammar starts with the output.
        special_token_ids: Ids of tokens that a grammar admits by name only.
    """

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, eos_token_ids: Sequence[int]) -> None:
        self.tokens: Sequence[bytes] = tokenizer.pieces
        if not eos_token_ids:
            self.tokens, eos_token_ids = [*self.tokens, b""], [len(self.tokens)]
        self.eos_token_ids = list(eos_token_ids)
        self.eos_token_id = self.eos_token_ids[0]
        self._special = tokenizer.special_ids | {*eos_token_ids}
        self.special_token_ids = sorted(self._special)
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        """Return tokens that write a text, or as much as tokens can."""
        return self._written(text, self._tokenizer.encode_short(text))

    def encode_all(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Yield what `__call__` returns for each of several texts."""
        return map(self._written, texts, self._tokenizer.encode_all(texts))

    def _written(self, text: str, ids: list[int]) -> list[int]:
        """Return the tokens of a text, or others that write it."""
        encoded = text.encode()
        written = b"".join(self.tokens[token_id] for token_id in ids)
        if written == encoded and self._special.isdisjoint(ids):
            return ids
        # The tokenizer changes the text, as by lower-casing it, or takes a part of it for a special
        # token, which a grammar admits by name only.
        return list(self._longest_matches(encoded))

    def unwritable(self, text: str) -> str:
        """Return the first character that no tokens write, or nothing."""
        if self._tokenizer.has_all_bytes:
            return ""
        encoded = text.encode()
        reachable, furthest = {0}, 0
        for start in range(len(encoded)):
            if start in reachable:
                furthest = start
                reachable.update(start + len(token) for token in self._matches(encoded, start))
        if len(encoded) in reachable:
            return ""
        return text[len(encoded[:furthest].decode(errors="ignore"))]

    def _longest_matches(self, encoded: bytes) -> Iterator[int]:
        """Yield the longest token at each place, as far as one matches."""
        start = 0
        while token := max(self._matches(encoded, start), key=len, default=b""):
            yield self._ids[token]
            start += len(token)

    def _matches(self, encoded: bytes, start: int) -> Iterator[bytes]:
        """Yield the tokens at a place of a text."""
        for end in range(start + 1, min(start + self._longest, len(encoded)) + 1):
            if (token := encoded[start:end]) in self._ids:
                yield token

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._ids), default=0)

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        """Ids of ordinary tokens, for texts that the tokenizer changes."""
        return {
            token: token_id
            for token_id, token in enumerate(self.tokens)
            if token and token_id not in self._special
        }
