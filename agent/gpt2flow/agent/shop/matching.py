"""Which product a customer means, typos and plurals included.

English and Chinese both name the thing last ("red usb cable", 红色雨伞), so a
phrase and a name are compared from their ends. A phrase that fits two products
about equally well, or none well enough, is not guessed at.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain

from rapidfuzz import fuzz

_GOOD_ENOUGH = 82.0
_MARGIN = 4.0
# What it costs a comparison that one side had words left over.
_LEFT_OVER = 5.0
_SUGGESTIONS = 3

_WORD = re.compile(r"[a-z0-9']+|[^\W\d_a-z]", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the|some|my|your|this|that|these|those)\s+", re.IGNORECASE)
# Words beside a name that tell no two things of the shop apart: colours, sizes,
# and numbers or measure words that slipped in.
_NEUTRAL_WORDS = """
    black white red blue green yellow pink grey gray brown purple orange silver dark light
    new good nice big large small little cheap extra another other more of pair
    one two three four five six seven eight nine ten
    黑 白 红 蓝 绿 黄 粉 灰 棕 紫 橙 银 深 浅 色 新 好 大 小 号 的 款 便 宜
    一 二 两 三 四 五 六 七 八 九 十 个 台 条 只 把 件 双 张 盒 包 部 盏
"""
_NEUTRAL = frozenset(_NEUTRAL_WORDS.split())
# Two words that are less alike than this are no typo of each other.
_SAME_WORD = 65.0


@dataclass(frozen=True)
class Match:
    """The product that is meant, if that is clear, and those that come close."""

    sku: str | None
    suggestions: list[str]


def match_product(phrase: str, names: Mapping[str, Collection[str]]) -> Match:
    """Find the product that a phrase names.

    Args:
        phrase: what the customer wrote, as it stands in the message.
        names: all names of each product, by its stock-keeping unit.

    Returns:
        The unit of the one product that fits, and the closest three of them.
    """
    words = _words(_ARTICLE.sub("", phrase.strip()))
    alike = sorted(names, key=lambda sku: (-_likeness(phrase, names[sku]), sku))[:_SUGGESTIONS]
    fits = sorted(((_fit(words, names[sku]), sku) for sku in names), reverse=True)
    if not words or not fits:
        return Match(None, alike)
    (best, sku), runner_up = fits[0], fits[1][0] if len(fits) > 1 else 0.0
    sure = best >= _GOOD_ENOUGH and best - runner_up >= _MARGIN
    return Match(sku if sure else None, alike)


def same_product(one: str, other: str, names: Mapping[str, Collection[str]]) -> bool:
    """Say whether two phrases clearly name the same product."""
    found = match_product(one, names).sku
    return found is not None and found == match_product(other, names).sku


def bare(phrase: str) -> str:
    """The phrase in lower case, without a leading article and outer blanks."""
    return _ARTICLE.sub("", phrase.strip()).casefold().strip()


def _words(text: str) -> list[str]:
    """Latin words in the singular; Chinese characters one by one."""
    return [_singular(word) for word in _WORD.findall(text.casefold())]


def _singular(word: str) -> str:
    word = word.replace("'", "")
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] != "s" else word


def _fit(phrase: list[str], names: Collection[str]) -> float:
    """How well a phrase fits a product by the best of its names, 0 to 100."""
    spelt = [_words(name) for name in names]
    # Where a name has a colour in it, colours do tell things apart.
    neutral = _NEUTRAL if _NEUTRAL.isdisjoint(chain(*spelt)) else frozenset[str]()
    return max(_score(phrase, name, neutral) for name in spelt)


def _score(phrase: list[str], name: list[str], neutral: frozenset[str]) -> float:
    whole = _similarity(phrase, name)
    if len(phrase) > len(name):
        left_over = phrase[: -len(name)]
        if all(word in neutral or word.isdecimal() for word in left_over):
            return max(whole, _similarity(phrase[-len(name) :], name))
        # A one-word name is too general to stand for what other words narrow down:
        # black tea is no green tea, though both are tea.
        if len(name) > 1:
            return max(whole, _similarity(phrase[-len(name) :], name) - _LEFT_OVER)
    elif 0 < len(phrase) < len(name):
        return max(whole, _similarity(phrase, name[-len(phrase) :]) - _LEFT_OVER)
    return whole


def _similarity(one: list[str], other: list[str]) -> float:
    if one and other and not one[-1].isascii() and _one_slip(one, other):
        return 100.0 - _LEFT_OVER
    if len(one) == len(other) and all(map(str.isascii, one)):
        pairs = zip(one, other, strict=True)
        if min((fuzz.ratio(*pair) for pair in pairs), default=0.0) < _SAME_WORD:
            return 0.0
    return fuzz.ratio("".join(one), "".join(other))


def _one_slip(one: list[str], other: list[str]) -> bool:
    """Chinese is mistyped as a homophone: one inner character of at least three."""
    if len(one) != len(other) or len(one) < 3 or one[0] != other[0] or one[-1] != other[-1]:
        return False
    return sum(a != b for a, b in zip(one, other, strict=True)) == 1


def _likeness(phrase: str, names: Collection[str]) -> float:
    """A forgiving comparison that only orders suggestions."""
    phrase = phrase.casefold()
    return max(fuzz.WRatio(phrase, name.casefold()) for name in names)
