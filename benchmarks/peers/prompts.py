"""Prompts of real text, for which no prefix cache helps."""

from pathlib import Path

from tokenizers import Tokenizer


class Prompts:
    """Source of prompts that never start alike.

    Args:
        checkpoint: Directory with `tokenizer.json` and `eval.txt`.
    """

    def __init__(self, checkpoint: Path) -> None:
        tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        text = (checkpoint / "eval.txt").read_text(encoding="utf-8")
        self._ids: list[int] = tokenizer.encode(text).ids
        self._offset = 0
        self._shift = 0

    def take(self, length: int) -> list[int]:
        """Return the next `length` token ids of the text.

        Raises:
            ValueError: The text has fewer than twice as many tokens.
        """
        if length > len(self._ids) // 2:
            raise ValueError(f"eval.txt too short: {len(self._ids)} tokens, {2 * length} required")
        if self._offset + length > len(self._ids):
            # Restart at another offset, so that no prompt repeats.
            self._shift += 1
            self._offset = self._shift
        self._offset += length
        return self._ids[self._offset - length : self._offset]
