"""Text of a growing output, cut at the first stop string."""

from collections.abc import Sequence

from gpt2flow.server.tokenizer.detokenization import Detokenizer


class TextStream:
    """Text of one sequence, in which stop strings are found.

    Text that may be the start of a stop string is held back.

    Attributes:
        stop_string: Stop string that ended the text; empty before.
    """

    __slots__ = ("_detokenizer", "_held", "_stop_strings", "stop_string")

    def __init__(self, detokenizer: Detokenizer, stop_strings: Sequence[str] = ()) -> None:
        """Start without text.

        Args:
            detokenizer: Detokenizer at the start of the sequence.
            stop_strings: Strings that end the text.
        """
        self._detokenizer = detokenizer
        self._stop_strings = stop_strings
        self._held = ""
        self.stop_string = ""

    def push(self, token_id: int, *, check_stops: bool = True) -> str:
        """Append a token, and return the text that it completes.

        A complete stop string sets `stop_string`; the returned text, which ends before it, is
        then the last.

        Args:
            token_id: Id of the token.
            check_stops: Whether a stop string may end the text.
        """
        text = self._detokenizer.push(token_id)
        if not self._stop_strings:
            return text
        text = self._held + text
        if check_stops:
            # A stop string ends the text even if later tokens could change it.
            whole = text + self._detokenizer.pending
            if found := _first_stop(whole, self._stop_strings):
                at, self.stop_string = found
                self._held = ""
                return whole[:at]
        keep = _longest_start(text, self._stop_strings)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """Return the remaining text, at the end of the sequence."""
        if self.stop_string:
            return ""
        return self._held + self._detokenizer.finish()

    def fork(self) -> "TextStream":
        """Return an independent stream in the same state."""
        twin = TextStream(self._detokenizer.fork(), self._stop_strings)
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
