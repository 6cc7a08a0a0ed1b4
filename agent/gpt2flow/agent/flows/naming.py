"""Words by which customers name an action or a value."""

import functools
import re

from gpt2flow.agent.flows.schema import Words

_NO = re.compile(
    r"(?:no|nope|nah|not)\b(?! (?:problem|worries|rush|hurry|doubt)|\.? ?\d)"
    r"|不(?!好意思|错|客气|急|着急|过)|没有(?!问题|错)",
    re.IGNORECASE,
)
# A message that says no, and nothing else but politeness.
_NO_ALONE = re.compile(
    r"(?:(?:no|nope|nah|not really|no way|forget it|thanks?|thank you|sorry"
    r"|不(?:是|对|用|要|了|行|必)*|没有|错了?|算了|谢谢)[ ,.!?:)…，。！？]*)+",
    re.IGNORECASE,
)
# What may stand between a no and the action that it negates. Other words begin another thought.
_BETWEEN = (
    "want|wanted|wanting|going|gonna|asking|asked|saying|said|meaning|meant|trying|need|needing|to|a"
    "|an|any|the|my|your|me|us|for|be|been|being|give|make|has|have|had|yet|ever|order"
    "|mark|marking|as|is|was"
)
_ENGLISH_NO = (
    r"(?:\b(?:not|never|nor|without|dont|doesnt|didnt|hasnt|havent|isnt|wont|(?!can|couldn)\w+n['’]t)"
    r"|\bnor (?:am|are|do|did|will|would|have|had) (?:i|we))"
)
# What the action is about, as in "don't want 1042 cancelled". In "don't want it cancel 1042" it
# ends the thought.
_OBJECT = r" (?:it|that|this|them|(?:so-?)?\d+)"
_ENGLISH_NO_BEFORE = (
    rf"(?:{_ENGLISH_NO}(?: (?:{_BETWEEN})\b){{0,4}}"
    r"|\bno(?: need to| marking(?: (?:so-?)?\d+)?(?: as)?)?)"
)
_ENGLISH_NO_AROUND = (
    rf"{_ENGLISH_NO}(?: (?:{_BETWEEN})\b){{0,3}}{_OBJECT}(?: (?:{_BETWEEN})\b){{0,3}}"
)
# Characters before 别 and 不 with which they say no no: 分别, 特别, 还不.
_CHINESE_NO = r"(?:(?<![要是还])不|没|(?<![分特区级个差识性])别|未|勿|甭|无需|无须)(?!是不)"
_CHINESE_WILL = (
    r"(?:是|想|要|用|需|说|会|能|再|可以|许|准|给我|给你们|帮我|必|打算|急着|着急|准备|让你们)"
)
# Clauses in which a no asks, wonders or threatens.
_WONDERING = re.compile(
    r"\b(?:why|can['’]?t|couldn['’]?t|won['’]?t) (?:\w+ )?(?:you|i|we)\b|\bwhy\b"
    r"|\byou(?: still)?(?:['’]ve| have| had| did)(?: still)? (?:not|never)\b"
    r"|\byou(?: still)? (?:have|had|did)n['’]?t\b|\byou never \w+ed$"
    r"|怎么|为什么|为啥|为何|凭什么|干嘛|要不|是不是|能不能",
    re.IGNORECASE,
)
_THREAT = re.compile(r"[^,，。!！]{0,4}(?:就|我要|我会)")
_CLAUSE_START = re.compile(r"[,.;:!?，。；：！？]")


def says_no(message: str) -> bool:
    """Return whether a message begins with a no."""
    return _NO.match(message) is not None


def says_more_than_no(message: str) -> bool:
    """Return whether a message begins with a no and goes on."""
    return says_no(message) and _NO_ALONE.fullmatch(message) is None


def is_named(words: Words, message: str) -> bool:
    """Return whether a message has one of the words."""
    return _pattern(_by_language(words)).search(message) is not None


def is_negated(words: Words, message: str) -> bool:
    """Return whether a message negates a word, as in "not cancelling"."""
    each = _by_language(words)
    return any(each) and any(
        not _is_wondering(message, found) for found in _negated_pattern(each).finditer(message)
    )


def _is_wondering(message: str, found: re.Match[str]) -> bool:
    """Return whether a no only wonders or threatens."""
    before = _CLAUSE_START.split(message[: found.end()])[-1]
    return _WONDERING.search(before) is not None or _THREAT.match(message, found.end()) is not None


def _by_language(words: Words) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(words.get("en", ())), tuple(words.get("zh", ()))


@functools.lru_cache(maxsize=256)
def _pattern(words: tuple[tuple[str, ...], tuple[str, ...]]) -> re.Pattern[str]:
    english, chinese = map(_any_of, words)
    return re.compile(rf"\b{english}|{chinese}", re.IGNORECASE)


@functools.lru_cache(maxsize=256)
def _negated_pattern(words: tuple[tuple[str, ...], tuple[str, ...]]) -> re.Pattern[str]:
    english, chinese = map(_any_of, words)
    return re.compile(
        rf"{_ENGLISH_NO_BEFORE} {english}|{_ENGLISH_NO_AROUND} {english}(?<=ed|ng)"
        rf"|{_CHINESE_NO}{_CHINESE_WILL}{{0,3}}{chinese}",
        re.IGNORECASE,
    )


def _any_of(words: tuple[str, ...]) -> str:
    """Return a pattern of any of the words.

    Without words, it matches nothing.
    """
    patterns = [
        re.escape(word.removesuffix("*"))
        + (r"\w*" if word.endswith("*") else r"\b" if word.isascii() else "")
        for word in words
    ]
    return f"(?:{'|'.join(patterns)})" if words else "(?!)"
