"""Prompts of real text, each from another place, so that no cache of prefixes helps."""

from pathlib import Path

from tokenizers import Tokenizer


class Prompts:
    """Cuts a text's tokens into prompts that never start alike.

    Args:
        checkpoint: Has `tokenizer.json` and `eval.txt`.
    """

    def __init__(self, checkpoint: Path) -> None:
        tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        text = (checkpoint / "eval.txt").read_text(encoding="utf-8")
        self._ids: list[int] = tokenizer.encode(text).ids
        self._place = 0
        self._shift = 0

    def take(self, length: int) -> list[int]:
        """Return the next so many tokens.

        Raises:
            ValueError: The text is shorter.
        """
        if length > len(self._ids) // 2:
            raise ValueError(f"eval.txt has {len(self._ids)} tokens, too few for {length}")
        if self._place + length > len(self._ids):
            # From the start again, but cut elsewhere.
            self._shift += 1
            self._place = self._shift
        self._place += length
        return self._ids[self._place - length : self._place]
