"""Words by which customers name an action, or say no to it."""

import functools
import re

from gpt2flow.agent.flows.schema import Action

_NO = re.compile(r"(?:no|nope|nah|not)\b|不(?!好意思)|没有", re.IGNORECASE)
# A message that says no, and nothing else but politeness.
_NO_ALONE = re.compile(
    r"(?:(?:no|nope|nah|not really|thanks?|thank you|sorry|不(?:是|对|用|要|了)*|没有|错了?|谢谢)"
    r"[ ,.!，。！]*)+",
    re.IGNORECASE,
)
_ENGLISH_NO = r"\b(?:not|never|no|nor|without|cannot|dont|doesnt|didnt|isnt|wont|\w+n['’]t)\b"
# Such a word begins another thought.
_BREAK = r"so|and|but|then|or|please|just|because|cause|cos|if|instead"
_CHINESE_NO = r"(?:不|没|别|未|勿|甭|无需|无须)"
_CHINESE_WILL = r"(?:是|想|要|用|需|说|会|再|给我|帮我|必|打算|急着|准备|让你们)"


def says_no(message: str) -> bool:
    """Return whether a message begins with a no."""
    return _NO.match(message) is not None


def says_more_than_no(message: str) -> bool:
    """Return whether a message begins with a no and goes on."""
    return says_no(message) and _NO_ALONE.fullmatch(message) is None


def is_named(action: Action, message: str) -> bool:
    """Return whether a message names an action."""
    return _pattern(_words(action)).search(message) is not None


def is_negated(action: Action, message: str) -> bool:
    """Return whether a message negates an action, as in "not cancelling"."""
    words = _words(action)
    return bool(any(words)) and _negated_pattern(words).search(message) is not None


def _words(action: Action) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(action.words.get("en", ())), tuple(action.words.get("zh", ()))


@functools.lru_cache(maxsize=256)
def _pattern(words: tuple[tuple[str, ...], tuple[str, ...]]) -> re.Pattern[str]:
    english, chinese = map(_any_of, words)
    return re.compile(rf"\b{english}|{chinese}", re.IGNORECASE)


@functools.lru_cache(maxsize=256)
def _negated_pattern(words: tuple[tuple[str, ...], tuple[str, ...]]) -> re.Pattern[str]:
    english, chinese = map(_any_of, words)
    between = rf"(?:[ '’-]+(?!(?:{_BREAK})\b)[\w-]+){{0,3}}?"
    return re.compile(
        rf"{_ENGLISH_NO}{between}[ '’-]+{english}|{_CHINESE_NO}{_CHINESE_WILL}{{0,3}}{chinese}",
        re.IGNORECASE,
    )


def _any_of(words: tuple[str, ...]) -> str:
    """Return a pattern of any of the words.

    Without words, it matches nothing.
    """
    return f"(?:{'|'.join(map(re.escape, words))})" if words else "(?!)"
