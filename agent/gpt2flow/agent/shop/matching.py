"""Fuzzy matching of product names, tolerant of typos and plurals.

English and Chinese both put the head noun last ("red usb cable", 红色雨伞). A phrase
and a name are therefore compared from their ends. A phrase matches no product if its
best score is low, or close to the second best.
"""

import functools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final

import pypinyin
from rapidfuzz import fuzz

_MATCH_THRESHOLD = 82.0
_MATCH_MARGIN = 4.0
# Score deducted when one side has leftover words.
_LEFTOVER_PENALTY = 5.0
_SUGGESTION_COUNT = 3

_WORD = re.compile(r"[a-z0-9']+|[^\W\d_a-z]", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the|some|my|your|this|that|these|those)\s+", re.IGNORECASE)
# Words that do not distinguish products of the shop: colours, sizes, numbers and
# measure words.
_MODIFIER_WORDS = """
    black white red blue green yellow pink grey gray brown purple orange silver dark light
    new good nice big large small little cheap extra another other more of pair
    one two three four five six seven eight nine ten
    黑 白 红 蓝 绿 黄 粉 灰 棕 紫 橙 银 深 浅 色 新 好 大 小 号 的 款 便 宜
    一 二 两 三 四 五 六 七 八 九 十 个 台 条 只 把 件 双 张 盒 包 部 盏
"""
_MODIFIERS = frozenset(_MODIFIER_WORDS.split())
# Too many single characters sound alike.
_MIN_HOMOPHONE = 2
_SHORT_WORD = 3
_SINGULARS = {
    "knives": "knife",
    "shelves": "shelf",
    "scarves": "scarf",
    "leaves": "leaf",
    "mice": "mouse",
}
_PUNCTUATION = " ,.;:!?，。！？、~"
_ENGLISH_FILLERS = (
    "of|them|those|these|that|this|it|one|ones|same|some|any|more|another|other|please|pls|actually"
    "|instead|too|also|as well|then|now|again|for me|ta|thanks|cheers"
    "|(?:in|into|to|from|out of) (?:my|the|your) (?:basket|cart|bag|trolley)"
)
_UNITS = r"(?:(?:bags?|bottles?) of|(?:packs?|packets?|boxes|box|sets?|pieces?|pairs?)(?: of)?)"
CHINESE_MEASURES: Final = "个個件台臺条條把双雙盒包部盏盞根只隻张張副套瓶块塊袋顶頂床本支"
"""Measure words, simplified and traditional."""
_FILLER_BEFORE = re.compile(
    rf"^(?:(?:{_UNITS}|{_ENGLISH_FILLERS})(?:\s+|$)"
    rf"|[\d一二两兩三四五六七八九十]+[{CHINESE_MEASURES}]|[这那][{CHINESE_MEASURES}款]?|它|再|另外|还要)",
    re.IGNORECASE,
)
_FILLER_AFTER = re.compile(
    rf"(?:(?:^|\s+)(?:{_ENGLISH_FILLERS})"
    rf"|[\d一二两兩三四五六七八九十]+[{CHINESE_MEASURES}]|[这那][{CHINESE_MEASURES}款]|它|吧|呢|哈|啊|各)$",
    re.IGNORECASE,
)
# Lowest similarity at which one word counts as a typo of another.
_WORD_THRESHOLD = 65.0


@dataclass(frozen=True)
class Match:
    """Result of matching a phrase.

    Attributes:
        sku: Stock-keeping unit of the matched product; None if it is unclear.
        suggestions: Stock-keeping units of the most similar products, best first.
    """

    sku: str | None
    suggestions: list[str]


def match_product(phrase: str, names: Mapping[str, Collection[str]]) -> Match:
    """Match a phrase against product names.

    Args:
        phrase: Product as the customer wrote it.
        names: Names of each product, by stock-keeping unit.

    Returns:
        The matched product, if there is one, and at most three suggestions.
    """
    words = split_words(_ARTICLE.sub("", strip_filler(phrase)))
    ranked = sorted(names, key=lambda sku: (-_suggestion_score(phrase, names[sku]), sku))
    suggestions = ranked[:_SUGGESTION_COUNT]
    scored = sorted(((_best_score(words, names[sku]), sku) for sku in names), reverse=True)
    if not words or not scored:
        return Match(None, suggestions)
    (best, sku), runner_up = scored[0], scored[1][0] if len(scored) > 1 else 0.0
    is_clear = best >= _MATCH_THRESHOLD and best - runner_up >= _MATCH_MARGIN
    return Match(sku if is_clear else None, suggestions)


def strip_filler(phrase: str) -> str:
    """Return a phrase without words around the product that name none.

    "of them" and 这个 become empty: they refer to a product that was named before.
    """
    text, before = phrase.strip(), ""
    while text != before:
        before = text
        text = _FILLER_AFTER.sub("", _FILLER_BEFORE.sub("", text)).strip(_PUNCTUATION)
    return text


def packed_product(unit: str, text: str, names: Mapping[str, Collection[str]]) -> str | None:
    """Return the product after its unit, as in "two packs of tea".

    Args:
        unit: Phrase of the text; one that names more than a unit, such as "packs", has no product.
        text: Text of a customer.
        names: Names of each product, by stock-keeping unit.

    Returns:
        The stock-keeping unit; None if no name follows word for word.
    """
    _, found, rest = text.partition(unit)
    if not found or re.fullmatch(_UNITS, unit.strip(), re.IGNORECASE) is None:
        return None
    words = split_words(strip_filler(f"{unit} {rest}"))
    named = [
        (len(parts), sku)
        for sku, aliases in names.items()
        for parts in map(split_words, aliases)
        if parts and words[: len(parts)] == parts
    ]
    return max(named)[1] if named else None


def same_product(one: str, other: str, names: Mapping[str, Collection[str]]) -> bool:
    """Return whether two phrases match the same product."""
    found = match_product(one, names).sku
    return found is not None and found == match_product(other, names).sku


def strip_article(phrase: str) -> str:
    """Return the phrase in lower case, without article and surrounding spaces."""
    return _ARTICLE.sub("", phrase.strip()).casefold().strip()


def split_words(text: str) -> list[str]:
    """Split a text into singular Latin words and single Chinese characters."""
    return [_singular(word) for word in _WORD.findall(text.casefold())]


def _singular(word: str) -> str:
    word = word.replace("'", "")
    if word in _SINGULARS:
        return _SINGULARS[word]
    if len(word) > _SHORT_WORD and word.endswith("s") and word[-2] != "s":
        word = word[:-1]
    # "brollies" is the plural of "brolly", and "cookies" that of "cookie".
    return word[:-2] + "y" if len(word) > _SHORT_WORD and word.endswith("ie") else word


def _best_score(phrase: list[str], names: Collection[str]) -> float:
    """Return the similarity to the best-matching name, 0 to 100."""
    split_names = [split_words(name) for name in names]
    # A colour in one of the names distinguishes products after all.
    modifiers = _MODIFIERS if _MODIFIERS.isdisjoint(chain(*split_names)) else frozenset[str]()
    return max(_score(phrase, name, modifiers) for name in split_names)


def _score(phrase: list[str], name: list[str], modifiers: frozenset[str]) -> float:
    whole = _similarity(phrase, name)
    if len(phrase) > len(name):
        leftover = phrase[: -len(name)]
        if all(word in modifiers or word.isdecimal() for word in leftover):
            return max(whole, _similarity(phrase[-len(name) :], name))
        # A one-word name is too general for a phrase with a distinguishing word: "black
        # tea" must not match "tea", which names green tea.
        if len(name) > 1:
            return max(whole, _similarity(phrase[-len(name) :], name) - _LEFTOVER_PENALTY)
    elif 0 < len(phrase) < len(name):
        return max(whole, _similarity(phrase, name[-len(phrase) :]) - _LEFTOVER_PENALTY)
    return whole


def _similarity(one: list[str], other: list[str]) -> float:
    if one and other and not one[-1].isascii():
        if _sounds_alike(one, other):
            return 100.0
        if _is_homophone_typo(one, other):
            return 100.0 - _LEFTOVER_PENALTY
    if len(one) == len(other) and all(map(str.isascii, one)):
        pairs = zip(one, other, strict=True)
        if min((fuzz.ratio(*pair) for pair in pairs), default=0.0) < _WORD_THRESHOLD:
            return 0.0
    return fuzz.ratio("".join(one), "".join(other))


def _sounds_alike(one: list[str], other: list[str]) -> bool:
    """Return whether two Chinese words are pronounced alike, tones aside.

    Pinyin input offers every character of a sound.
    """
    if len(one) != len(other) or len(one) < _MIN_HOMOPHONE:
        return False
    return _pinyin("".join(one)) == _pinyin("".join(other))


@functools.lru_cache(maxsize=4096)
def _pinyin(word: str) -> tuple[str, ...]:
    return tuple(pypinyin.lazy_pinyin(word))


def _is_homophone_typo(one: list[str], other: list[str]) -> bool:
    """Return whether two Chinese words differ in one inner character.

    Typing in Pinyin substitutes homophones. Words have at least three characters.
    """
    if len(one) != len(other) or len(one) < 3 or one[0] != other[0] or one[-1] != other[-1]:
        return False
    return sum(a != b for a, b in zip(one, other, strict=True)) == 1


def _suggestion_score(phrase: str, names: Collection[str]) -> float:
    """Return a lenient similarity, 0 to 100, that only ranks suggestions."""
    phrase = phrase.casefold()
    return max(fuzz.WRatio(phrase, name.casefold()) for name in names)
