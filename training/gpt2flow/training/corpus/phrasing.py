"""Text of segments: plurals, articles, and what joins requests."""

import re

from gpt2flow.training.corpus.noise import Segment

_VOWEL = re.compile(r"[aeiou]", re.IGNORECASE)
_UNCOUNTABLE = re.compile(r"(s|tea|coffee|rice|milk|water|paper|juice|oil)$", re.IGNORECASE)
_PLURALS = (
    (re.compile(r"(?<=[^aeiou])y$"), "ies"),
    (re.compile(r"(?<=[nlw]i)fe$|(?<=[lr])f$|(?<=ea)f$"), "ves"),
    (re.compile(r"(?<=[xz])$|(?<=[cs]h)$"), "es"),
)
_END_MARKS = re.compile(r"[.!?。,;\s]+$")
FULL_STOPS = ".!?。,;~…:"
"""Marks after which no other one follows."""


def pluralize(text: str) -> str:
    """Return the plural of an English noun."""
    if _UNCOUNTABLE.search(text):
        return text
    for pattern, ending in _PLURALS:
        if pattern.search(text):
            return pattern.sub(ending, text)
    return text + "s"


def fix_article(segments: list[Segment], text: str) -> None:
    """Turn a trailing "a" into "an" or "some", as `text` requires."""
    before = segments[-1].text if segments and segments[-1].slot is None else ""
    if before == "a " or before.endswith(" a "):
        if text.endswith("s"):
            segments[-1].text = before[:-2] + "some "
        elif _VOWEL.match(text):
            segments[-1].text = before[:-1] + "n "


def join(segments: list[Segment], joiner: str) -> None:
    """Append a joiner in place of the last segment's final punctuation."""
    last = segments[-1]
    if last.text[-1:] in FULL_STOPS and joiner[:1] == ".":
        joiner = joiner[1:]
    elif last.slot is None and joiner:
        last.text = _END_MARKS.sub("", last.text)
    segments.append(Segment(joiner))
