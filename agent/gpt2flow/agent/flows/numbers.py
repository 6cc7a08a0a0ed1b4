"""Number words of both languages."""

from typing import Final

_UNITS: Final = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve"),
)
CLOCK_WORDS: Final = {word: number for number, word in enumerate(_UNITS, start=1)}
"""English words of the hours."""

QUANTITY_WORDS: Final = CLOCK_WORDS | {
    "half a dozen": 6,
    "a couple": 2,
    "a dozen": 12,
    "a pair": 2,
    "thirteen": 13,
    "fourteen": 14,
    "fifteen": 15,
    "sixteen": 16,
    "seventeen": 17,
    "eighteen": 18,
    "nineteen": 19,
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "couple": 2,
    "dozen": 12,
    "pair": 2,
}
"""English words of quantities."""

CHINESE_DIGITS: Final = "零一二三四五六七八九"
"""Chinese digits from 0 to 9."""

CHINESE_COUNTS: Final = f"{CHINESE_DIGITS[1:]}两兩俩倆仨"
"""Characters that count things, from 1 to 9."""

CHINESE_TENS: Final = "[一二三四五六七八九]?十[一二三四五六七八九]?"
"""Pattern of Chinese numbers from 10 to 99."""

_CHINESE_WORDS: Final = {word: number for number, word in enumerate(CHINESE_DIGITS)} | {
    "两": 2,
    "兩": 2,
    "俩": 2,
    "倆": 2,
    "仨": 3,
    "半打": 6,
    "一打": 12,
}


def parse_chinese_number(text: str) -> int:
    """Return the value of a Chinese number below 100.

    Words such as 半打 count too.

    Raises:
        KeyError: The text is neither.
    """
    if "十" not in text:
        return _CHINESE_WORDS[text]
    tens, ones = text.split("十")
    return (_CHINESE_WORDS[tens] if tens else 1) * 10 + (_CHINESE_WORDS[ones] if ones else 0)
