"""Variation of a scenario's messages between repeats, by seed."""

import random
import re
from collections.abc import Collection

_SHARE = 0.6
_WORD = re.compile(r"[a-z]{5,}")
_CHINESE_COMMA = re.compile("[，,]")
_FINAL_MARK = re.compile(r"[.!?。！？~]+$")


def vary(text: str, protected: Collection[str], rng: random.Random) -> str:
    """Return a message with at most one typo and another final mark.

    Args:
        text: Message of the scenario.
        protected: Texts that must stay as they are, such as names and addresses.
        rng: Random generator.
    """
    if rng.random() > _SHARE:
        return text
    text = _swap_letters(text, protected, rng)
    if rng.random() < 0.3:
        text = _change_comma(text, protected, rng)
    mark = _FINAL_MARK.search(text)
    may_drop = mark and mark.group() not in "?？" and _is_free(text, mark, protected)
    if mark and may_drop and rng.random() < 0.5:
        text = text[: mark.start()]
    return text


def _swap_letters(text: str, protected: Collection[str], rng: random.Random) -> str:
    """Swap two inner letters of a free word in lower case."""
    words = [word for word in _WORD.finditer(text) if _is_free(text, word, protected)]
    if not words:
        return text
    word = rng.choice(words)
    at = word.start() + rng.randrange(1, len(word.group()) - 2)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def _change_comma(text: str, protected: Collection[str], rng: random.Random) -> str:
    """Replace one Chinese comma by a space."""
    if text.isascii():
        return text
    commas = [c for c in _CHINESE_COMMA.finditer(text) if _is_free(text, c, protected)]
    if not commas:
        return text
    comma = rng.choice(commas)
    return f"{text[: comma.start()]} {text[comma.end() :]}"


def _is_free(text: str, match: re.Match[str], protected: Collection[str]) -> bool:
    """Return whether a match touches no protected text, e-mail address or placeholder."""
    start = max(text.rfind(" ", 0, match.start()), 0)
    token = text[start:].split(maxsplit=1)[0]
    if "@" in token or "{" in token:
        return False
    folded = text.lower()
    for value in protected:
        at = folded.find(value.lower())
        while value and at >= 0:
            if at < match.end() and match.start() < at + len(value):
                return False
            at = folded.find(value.lower(), at + 1)
    return True
